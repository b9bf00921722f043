-- Adds one part to one shard: all of it or, when the shard has been given something else than
-- the part says, none of it.
--
-- KEYS: users, totals, hours, epochs, applied, waiting, waiting-since
-- ARGV, in this order, each list after its length:
--   spans:   journal, after, through
--   epochs:  digest, first_ms, definition
--   totals:  field, addition                    (what the answers add, whoever the users are)
--   hours:   field, addition
--   users:   id, then exposures: at_ms, epoch, group
--                then events:    at_ms, metric, within_ms or '', count, sum, base, id or ''
--   then:    wait_from_ms, the most users that wait
-- Returns {'now'}, {'before'}, or {'mismatch', what the shard has of each span's journal}.

local users_key, totals_key, hours_key, epochs_key, applied_key = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local waiting_key, since_key = KEYS[6], KEYS[7]

-- What the shard has been given decides whether this is added at all.
local spans, as_after, as_through, has = {}, true, true, {'mismatch'}
for i = 1, number() do
  local span = {journal = text(), after = text(), through = text()}
  local given = redis.call('HGET', applied_key, span.journal) or '0'
  as_after = as_after and given == span.after
  as_through = as_through and given == span.through
  has[i + 1] = given
  spans[i] = span
end
if not as_after then
  if as_through then return {'before'} end
  return has
end

local epochs = {}
for i = 1, number() do
  local epoch = {digest = text(), first_ms = number(), definition = text()}
  local known = redis.call('HGET', epochs_key, epoch.digest)
  if known then
    local first, definition = known:match('^(%d+) (.*)$')
    epoch.first_ms, epoch.definition = math.min(epoch.first_ms, tonumber(first)), definition
  end
  epochs[i] = epoch
end

for i = 1, number() do add_to(totals, text(), number()) end
for i = 1, number() do add_to(hours, text(), number()) end

local changed, waits, waits_no_more = {}, {}, {}
local somebody_waits = redis.call('EXISTS', waiting_key) == 1
for _ = 1, number() do
  local id = text()
  local record = redis.call('HGET', users_key, id)
  local user = record and read(record)
  for _ = 1, number() do
    local at_ms, epoch, group = number(), text(), text()
    if not user then
      user = {group = group, epoch = epoch, first_ms = at_ms, crossed = '0', metrics = {}, names = {}, ids = {}}
      add(user, 'users', 1)
    end
    seen(user, at_ms, epoch, group)
  end
  local before = somebody_waits and redis.call('HGET', waiting_key, id)
  local events, left = read_events(before), {}
  for _ = 1, number() do
    events[#events + 1] = {at_ms = number(), metric = text(), within_ms = number(), count = number(),
      sum = number(), base = number(), id = text()}
  end
  for _, of in ipairs(events) do
    if not (user and event(user, of)) and #left < WAITING_MAX then left[#left + 1] = of end
  end
  if user then
    local after = write(user)
    if after ~= record then changed[#changed + 1] = id; changed[#changed + 1] = after end
  end
  if #left > 0 then
    local words, since_ms = {}, 0
    for i, of in ipairs(left) do words[i] = write_event(of); since_ms = math.max(since_ms, of.at_ms) end
    waits[#waits + 1] = {id = id, since_ms = since_ms, events = table.concat(words, ' ')}
  elseif before then
    waits_no_more[#waits_no_more + 1] = id
  end
end

-- Nothing was written so far. A Redis that must not be written to (out of memory, a replica, a
-- full disk) refuses the first of these, and with it the whole.
for _, span in ipairs(spans) do redis.call('HSET', applied_key, span.journal, span.through) end
for _, epoch in ipairs(epochs) do redis.call('HSET', epochs_key, epoch.digest, whole(epoch.first_ms) .. ' ' .. epoch.definition) end
for i = 1, #changed, 2 do redis.call('HSET', users_key, changed[i], changed[i + 1]) end
add_counts(totals_key, hours_key)

for _, wait in ipairs(waits) do
  redis.call('HSET', waiting_key, wait.id, wait.events)
  redis.call('ZADD', since_key, whole(wait.since_ms), wait.id)
end
local function give_up(ids)
  for _, id in ipairs(ids) do redis.call('HDEL', waiting_key, id); redis.call('ZREM', since_key, id) end
end
give_up(waits_no_more)
local wait_from_ms, waiting_users_max = text(), number()
give_up(redis.call('ZRANGEBYSCORE', since_key, '-inf', '(' .. wait_from_ms, 'LIMIT', 0, 1000))
if #waits > 0 then
  local over = redis.call('ZCARD', since_key) - waiting_users_max
  if over > 0 then give_up(redis.call('ZRANGE', since_key, 0, over - 1)) end
end
return {'now'}
