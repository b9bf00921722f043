-- Adds one part to one shard: all of it or, when the shard has been given something else than
-- the part says, none of it.
--
-- KEYS: users, totals, hours, epochs, applied, waiting, waiting-since, aliases
-- ARGV, in this order, each list after its length:
--   spans:   journal, after, through
--   epochs:  digest, first_ms, definition
--   totals:  field, addition                    (what the answers add, whoever the users are)
--   hours:   field, addition
--   joins:   id, other id of the same person
--   users:   id, then exposures: at_ms, epoch, group
--                then events:    at_ms, metric, within_ms or '', count, sum, base, id or ''
--   then:    wait_from_ms, the most users that wait
-- Returns {'now'}, {'before'}, or {'mismatch', what the shard has of each span's journal}.

local users_key, totals_key, hours_key, epochs_key, applied_key = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local waiting_key, since_key, aliases_key = KEYS[6], KEYS[7], KEYS[8]

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

-- People of this part, by the ID that stands for them.
local people, order = {}, {}
local somebody_waits = redis.call('EXISTS', waiting_key) == 1
local linked = {}
local somebody_linked = redis.call('EXISTS', aliases_key) == 1

local function root_of(id)
  local root = linked[id] or (somebody_linked and redis.call('HGET', aliases_key, id))
  while root do id, root = root, linked[root] or (somebody_linked and redis.call('HGET', aliases_key, root)) end
  return id
end

local function person(id)
  if not people[id] then
    local record = redis.call('HGET', users_key, id)
    local waits = somebody_waits and redis.call('HGET', waiting_key, id)
    people[id] = {before = record, user = record and read(record), waited = waits, waiting = read_events(waits)}
    order[#order + 1] = id
  end
  return people[id]
end

-- Counts the events that may be counted; the others wait.
local function settle(who)
  local left = {}
  for _, of in ipairs(who.waiting) do
    if not (who.user and event(who.user, of)) and #left < WAITING_MAX then left[#left + 1] = of end
  end
  who.waiting = left
end

for _ = 1, number() do
  local first, other = root_of(text()), text()
  local second = root_of(other)
  if first ~= second then
    local a, b = person(first), person(second)
    if a.user then add_whole(a.user, -1) end
    if b.user then add_whole(b.user, -1) end
    a.user = a.user and b.user and joined(a.user, b.user) or a.user or b.user
    if a.user then add_whole(a.user, 1) end
    for _, of in ipairs(b.waiting) do a.waiting[#a.waiting + 1] = of end
    b.user, b.waiting = nil, {}
    settle(a)
    linked[second] = first
  end
end

for _ = 1, number() do
  local who = person(root_of(text()))
  for _ = 1, number() do
    local at_ms, epoch, group = number(), text(), text()
    if not who.user then
      who.user = {group = group, epoch = epoch, first_ms = at_ms, crossed = '0', metrics = {}, names = {}, ids = {}}
      add(who.user, 'users', 1)
    end
    seen(who.user, at_ms, epoch, group)
  end
  for _ = 1, number() do
    who.waiting[#who.waiting + 1] = {at_ms = number(), metric = text(), within_ms = number(), count = number(),
      sum = number(), base = number(), id = text()}
  end
  settle(who)
end

-- Nothing was written so far. A Redis that must not be written to (out of memory, a replica, a
-- full disk) refuses the first of these, and with it the whole.
for _, span in ipairs(spans) do redis.call('HSET', applied_key, span.journal, span.through) end
for _, epoch in ipairs(epochs) do redis.call('HSET', epochs_key, epoch.digest, whole(epoch.first_ms) .. ' ' .. epoch.definition) end
for second, first in pairs(linked) do redis.call('HSET', aliases_key, second, first) end
local waits, waits_no_more = 0, {}
for _, id in ipairs(order) do
  local who = people[id]
  local after = who.user and write(who.user)
  if after and after ~= who.before then redis.call('HSET', users_key, id, after) end
  if who.before and not after then redis.call('HDEL', users_key, id) end
  if #who.waiting > 0 then
    local words, since_ms = {}, 0
    for i, of in ipairs(who.waiting) do words[i] = write_event(of); since_ms = math.max(since_ms, of.at_ms) end
    redis.call('HSET', waiting_key, id, table.concat(words, ' '))
    redis.call('ZADD', since_key, whole(since_ms), id)
    waits = waits + 1
  elseif who.waited then
    waits_no_more[#waits_no_more + 1] = id
  end
end
add_counts(totals_key, hours_key)

local function give_up(ids)
  for _, id in ipairs(ids) do redis.call('HDEL', waiting_key, id); redis.call('ZREM', since_key, id) end
end
give_up(waits_no_more)
local wait_from_ms, waiting_users_max = text(), number()
give_up(redis.call('ZRANGEBYSCORE', since_key, '-inf', '(' .. wait_from_ms, 'LIMIT', 0, 1000))
if waits > 0 then
  local over = redis.call('ZCARD', since_key) - waiting_users_max
  if over > 0 then give_up(redis.call('ZRANGE', since_key, 0, over - 1)) end
end
return {'now'}
