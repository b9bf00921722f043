-- Adds one delta to one shard: all of it or, when the shard has been given something else than
-- the delta says, none of it.
--
-- KEYS: users, totals, hours, epochs, applied, waiting, waiting-since, aliases,
--       identities, identity-counts, event-ids, event-ids-at, event-counts, forgotten, seen-once
-- ARGV, in this order, each list after its length:
--   spans:   journal, after, through
--   then:    the version of `forgotten`
--   epochs:  digest, first_ms, definition
--   totals:  field, addition                    (what the answers add, whoever the users are)
--   hours:   field, addition
--   joins:   minted id, known id, 1 if they lie in different shards or 0, when they came together
--   users:   id, when it last came back or 0, then exposures: at_ms, epoch, group, latency, segments
--                then events:    at_ms, reported_ms, metric, within_ms or '', count, sum, base, id or '', cap or '', covariate_ms or ''
--   then:    wait_from_ms, the most users that wait, the most bytes of that, remember_from_ms, the most IDs of a user,
--            how many old IDs are forgotten at once, the time from which visitors who were seen once are kept, the most
--            bytes of them, how many are forgotten at once, how long they are kept, how long an event waits, how long an
--            ID is remembered
-- Returns {'now', how many records could not be read}, {'before'}, {'stale'}, or {'mismatch', what the shard has of each span's journal}.

local users_key, totals_key, hours_key, epochs_key, applied_key = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local waiting_key, since_key, aliases_key = KEYS[6], KEYS[7], KEYS[8]
local identities_key, counts_key = KEYS[9], KEYS[10]
local OLD_STEPS_MAX = 16
local ids_key, ids_at_key, event_counts_key, once_key = KEYS[11], KEYS[12], KEYS[13], KEYS[15]
local forgotten_at_once, of_user_max = tonumber(ARGV[#ARGV - 6]), tonumber(ARGV[#ARGV - 7])
-- The clock of one process that is wrong does not end what others remember or wait for.
local remember_from_ms = math.min(tonumber(ARGV[#ARGV - 8]), now_ms() - tonumber(ARGV[#ARGV]))
local wait_bound_ms = now_ms() - tonumber(ARGV[#ARGV - 1])
local once_kept_ms = tonumber(ARGV[#ARGV - 2])
local once_from_ms = math.min(tonumber(ARGV[#ARGV - 5]), now_ms() - once_kept_ms)
local once_bytes_max, once_at_once = tonumber(ARGV[#ARGV - 4]), tonumber(ARGV[#ARGV - 3])

local wrong = wrong_type({'hash', 'hash', 'hash', 'hash', 'hash', 'hash', 'zset', 'hash', 'hash', 'hash', 'zset', 'zset', 'hash', 'zset', 'zset'})
if wrong then return wrong end

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

-- Somebody was forgotten since this delta was made: it may hold what is not to be counted.
if number() ~= tonumber(redis.call('ZSCORE', KEYS[14], 'version') or 0) then return {'stale'} end

local epochs = {}
for i = 1, number() do
  local epoch = {digest = text(), first_ms = number(), definition = text()}
  local known = redis.call('HGET', epochs_key, epoch.digest)
  if known then
    local first, definition = known:match('^(%d+) (.*)$')
    if first then
      epoch.first_ms, epoch.definition = math.min(epoch.first_ms, tonumber(first)), definition
    else
      damaged = damaged + 1
    end
  end
  epochs[i] = epoch
end

for i = 1, number() do add_to(totals, text(), number()) end
for i = 1, number() do add_to(hours, text(), number()) end

-- People of this delta, by the ID that stands for them.
local people, order = {}, {}
local somebody_waits = redis.call('EXISTS', waiting_key) == 1

-- Roles of IDs, as identities.rs has them: '=' and the known ID that absorbed it, '~' and the known ID
-- of another shard that came with it, '+' for what has absorbed, '!' for a further known ID.
local roles, new_roles = {}, {}
local has_roles = redis.call('EXISTS', identities_key) == 1
local has_old_aliases = redis.call('EXISTS', aliases_key) == 1

local function role_of(id)
  if roles[id] == nil then roles[id] = has_roles and redis.call('HGET', identities_key, id) or false end
  return roles[id]
end

local function set_role(id, role) roles[id], new_roles[id] = role, role end

-- At most one step, and a bounded number more in what 0.1.0 has left.
local function root_of(id)
  local role = role_of(id)
  if role and role:sub(1, 1) == '=' then id = role:sub(2) end
  for _ = 1, has_old_aliases and OLD_STEPS_MAX or 0 do
    local root = redis.call('HGET', aliases_key, id)
    if not root then break end
    id = root
  end
  return id
end

local function person(id)
  if not people[id] then
    local record = redis.call('HGET', users_key, id)
    local waits = somebody_waits and redis.call('HGET', waiting_key, id)
    local user = record and read(record)
    people[id] = {id = id, before = record, user = user, once_bytes = seen_once_bytes(id, record, user), waited = waits, waiting = read_events(waits), new_ids = {}}
    order[#order + 1] = id
  end
  return people[id]
end

-- IDs of counted events: what this delta changes of them. Of `ids_at`, false is one that goes.
local ids_at, ids_added = {}, 0
local has_ids = redis.call('EXISTS', ids_key) == 1
local uncounted = {refused_ids = 0, dropped_waiting = 0}

local function is_remembered(member)
  local at_ms = ids_at[member]
  if at_ms == nil then at_ms = has_ids and redis.call('ZSCORE', ids_at_key, member) end
  return at_ms and tonumber(at_ms) >= remember_from_ms
end

local function count_ids(who)
  local prefix = id_prefix(who.id)
  who.ids = redis.call('ZLEXCOUNT', ids_key, '[' .. prefix .. '0000000000000000', '[' .. prefix .. 'ffffffffffffffff')
end

-- Whether an event with an ID is counted now.
local function admit_of(who)
  return function(of)
    local member = id_prefix(who.id) .. of.id
    if is_remembered(member) then return false end
    if of.reported_ms < remember_from_ms then return true end
    if not who.ids then count_ids(who) end
    if who.ids >= of_user_max then
      uncounted.refused_ids = uncounted.refused_ids + 1
      return false
    end
    who.ids = who.ids + 1
    ids_at[member] = of.reported_ms
    who.new_ids[#who.new_ids + 1] = member
    ids_added = ids_added + 1
    return true
  end
end

-- Gives the IDs of the second to the first, who keeps its own where both have the same.
local function absorb_ids(first, second)
  local from, to = id_prefix(second.id), id_prefix(first.id)
  local members = has_ids and ids_of(ids_key, from) or {}
  for _, member in ipairs(second.new_ids) do members[#members + 1] = member end
  if #members == 0 then return end
  if not first.ids then count_ids(first) end
  for _, member in ipairs(members) do
    local at_ms = ids_at[member]
    if at_ms == nil then at_ms = tonumber(redis.call('ZSCORE', ids_at_key, member)) end
    local own = to .. member:sub(#from + 1)
    local has = ids_at[own]
    if has == nil then has = redis.call('ZSCORE', ids_at_key, own) end
    if at_ms and not has then
      ids_at[own] = at_ms
      first.new_ids[#first.new_ids + 1] = own
      first.ids = first.ids + 1
    end
    ids_at[member] = false
  end
  second.ids, second.new_ids = nil, {}
end

-- Counts the events that may be counted; the others wait, each once.
local function settle(who)
  local left, waits, bytes, admit = {}, {}, 0, admit_of(who)
  for _, of in ipairs(who.waiting) do
    if not (who.user and event(who.user, of, admit)) and not waits[of.id] then
      local more = #write_event(of) + 1
      if #left < WAITING_MAX and bytes + more <= WAITING_BYTES_MAX then
        left[#left + 1] = of
        bytes = bytes + more
        if of.id ~= '' then waits[of.id] = true end
      else
        uncounted.dropped_waiting = uncounted.dropped_waiting + 1
      end
    end
  end
  who.waiting = left
  if who.user then covariates(who.user, left) end
end

-- A visitor who was seen once and returns too late begins anew, whether or not the clean-up came first.
local function forget_stale(who, back_ms)
  if who.user and who.user.seen_once and back_ms > who.user.first_ms + once_kept_ms then who.user = nil end
end

-- Moves all that the second has brought to the first.
local function absorb(first, second, at_ms)
  if first == second then return end
  local a, b = person(first), person(second)
  forget_stale(a, at_ms)
  forget_stale(b, at_ms)
  if a.user then add_whole(a.user, -1) end
  if b.user then add_whole(b.user, -1) end
  a.user = a.user and b.user and joined(a.user, b.user) or a.user or b.user
  -- The minted ID came with the known one.
  if a.user then a.user.seen_once = false end
  if a.user then add_whole(a.user, 1) end
  for _, of in ipairs(b.waiting) do a.waiting[#a.waiting + 1] = of end
  b.user, b.waiting = nil, {}
  absorb_ids(a, b)
  settle(a)
end

local came_about = {joined = 0, shared_devices = 0, apart = 0}
local function join(minted, known, is_apart, at_ms)
  local role, known_role = role_of(minted), role_of(known)
  local counts_for_another = known_role and known_role:find('^[=~]')
  if minted == known or counts_for_another then return end
  if not role and is_apart then
    set_role(minted, '~' .. known)
    came_about.apart = came_about.apart + 1
  elseif not role then
    absorb(root_of(known), root_of(minted), at_ms)
    set_role(minted, '=' .. known)
    if not known_role then set_role(known, '+') end
    came_about.joined = came_about.joined + 1
  elseif role:find('^[=~]') and role:sub(2) ~= known and known_role ~= '!' then
    set_role(known, '!')
    came_about.shared_devices = came_about.shared_devices + 1
  end
end

for _ = 1, number() do
  local minted, known, is_apart, at_ms = text(), text(), text(), number()
  join(minted, known, is_apart == '1', at_ms)
end

for _ = 1, number() do
  local who = person(root_of(text()))
  local back_ms = number()
  forget_stale(who, back_ms)
  local exposures, exposed_at = {}, {}
  for n = 1, number() do
    local of = {at_ms = number(), epoch = text(), group = text(), latency = number(), segments = text()}
    exposures[n], exposed_at[of.at_ms] = of, true
  end
  -- Only a request of the user brings what waits: another one than that of an exposure by a difference, which follows the
  -- events of its own request.
  local is_back = back_ms > 0
  for _, of in ipairs(who.waiting) do
    is_back = is_back or of.metric == CAME_BACK or not exposed_at[of.reported_ms]
  end
  if who.user and is_back then came_back(who.user) end
  for _, of in ipairs(exposures) do
    if not who.user then
      who.user = {group = of.group, epoch = of.epoch, first_ms = of.at_ms, crossed = '0', seen_once = not is_back, latency = of.latency,
        segments = of.segments, metrics = {}, names = {}}
      add_whole(who.user, 1)
    end
    seen(who.user, of.at_ms, of.epoch, of.group, of.latency, of.segments)
  end
  local events = number()
  if not who.user and events == 0 and #who.waiting == 0 and back_ms > 0 then
    who.waiting[1] = {at_ms = back_ms, reported_ms = back_ms, metric = CAME_BACK, count = 0, sum = 0, base = 0, id = ''}
  end
  for _ = 1, events do
    who.waiting[#who.waiting + 1] = {at_ms = number(), reported_ms = number(), metric = text(), within_ms = number(), count = number(),
      sum = number(), base = number(), id = text(), cap = number(), covariate_ms = number()}
  end
  settle(who)
end

-- Nothing was written so far. A Redis that must not be written to (out of memory, a replica, a
-- full disk) refuses the first of these, and with it the whole.
for _, span in ipairs(spans) do redis.call('HSET', applied_key, span.journal, span.through) end
for _, epoch in ipairs(epochs) do redis.call('HSET', epochs_key, epoch.digest, whole(epoch.first_ms) .. ' ' .. epoch.definition) end
for id, role in pairs(new_roles) do redis.call('HSET', identities_key, id, role) end
for name, count in pairs(came_about) do add_count(counts_key, name, count) end
local bytes_added, waits_no_more, once_bytes_added = 0, {}, 0
for _, id in ipairs(order) do
  local who = people[id]
  local after = who.user and write(who.user)
  if after and after ~= who.before then redis.call('HSET', users_key, id, after) end
  if who.before and not after then redis.call('HDEL', users_key, id) end
  local once_bytes = seen_once_bytes(id, after, who.user)
  if once_bytes > 0 then
    redis.call('ZADD', once_key, whole(who.user.first_ms), id)
  elseif who.once_bytes > 0 then
    redis.call('ZREM', once_key, id)
  end
  once_bytes_added = once_bytes_added + once_bytes - who.once_bytes
  if #who.waiting > 0 then
    local words, since_ms = {}, 0
    for i, of in ipairs(who.waiting) do words[i] = write_event(of); since_ms = math.max(since_ms, of.reported_ms + (of.covariate_ms or 0)) end
    local written = table.concat(words, ' ')
    redis.call('HSET', waiting_key, id, written)
    redis.call('ZADD', since_key, whole(who.user and EXPOSED_MS + since_ms or since_ms), id)
    bytes_added = bytes_added + waiting_bytes(id, written) - waiting_bytes(id, who.waited)
  elseif who.waited then
    waits_no_more[#waits_no_more + 1] = id
  end
end
add_counts(totals_key, hours_key)
for member, at_ms in pairs(ids_at) do
  if at_ms then
    redis.call('ZADD', ids_key, 0, member)
    redis.call('ZADD', ids_at_key, whole(at_ms), member)
  else
    redis.call('ZREM', ids_key, member)
    redis.call('ZREM', ids_at_key, member)
  end
end
local old_ids = redis.call('ZRANGEBYSCORE', ids_at_key, '-inf', '(' .. whole(remember_from_ms), 'LIMIT', 0, forgotten_at_once + 2 * ids_added)
for _, member in ipairs(old_ids) do
  redis.call('ZREM', ids_key, member)
  redis.call('ZREM', ids_at_key, member)
end

-- Users whose events wait no longer; how many events those were.
local function give_up(ids)
  local events = 0
  for _, id in ipairs(ids) do
    local written = redis.call('HGET', waiting_key, id)
    if written then
      bytes_added = bytes_added - waiting_bytes(id, written)
      events = events + 1 + select(2, written:gsub(' ', ''))
    end
    redis.call('HDEL', waiting_key, id)
    redis.call('ZREM', since_key, id)
  end
  return events
end
give_up(waits_no_more)
local wait_from_ms, waiting_users_max, waiting_bytes_max = math.min(number(), wait_bound_ms), number(), number()
for _, first_ms in ipairs({0, EXPOSED_MS}) do
  give_up(redis.call('ZRANGEBYSCORE', since_key, whole(first_ms), '(' .. whole(first_ms + wait_from_ms), 'LIMIT', 0, 1000))
end
local over = redis.call('ZCARD', since_key) - waiting_users_max
if over > 0 then
  uncounted.dropped_waiting = uncounted.dropped_waiting + give_up(redis.call('ZRANGE', since_key, 0, over - 1))
end
local all_bytes = tonumber((redis.call('HGET', event_counts_key, 'waiting_bytes') or '0'):match('^%-?%d+$')) or 0
while all_bytes + bytes_added > waiting_bytes_max do
  local first = redis.call('ZRANGE', since_key, 0, 0)
  if #first == 0 then break end
  uncounted.dropped_waiting = uncounted.dropped_waiting + give_up(first)
end
if bytes_added ~= 0 then
  -- Of what 0.1.0 left waiting, nobody knew the size.
  redis.call('HSET', event_counts_key, 'waiting_bytes', whole(math.max(0, all_bytes + bytes_added)))
end

-- Forgets visitors who were seen once; how many those were.
local function forget_once(ids)
  for _, id in ipairs(ids) do
    local record = redis.call('HGET', users_key, id)
    local user = record and read(record)
    if user and user.seen_once then
      once_bytes_added = once_bytes_added - seen_once_bytes(id, record, user)
      redis.call('HDEL', users_key, id)
    end
    redis.call('ZREM', once_key, id)
  end
  return #ids
end
forget_once(redis.call('ZRANGEBYSCORE', once_key, '-inf', '(' .. whole(once_from_ms), 'LIMIT', 0, once_at_once))
local once_bytes = tonumber((redis.call('HGET', event_counts_key, 'seen_once_bytes') or '0'):match('^%-?%d+$')) or 0
while once_bytes + once_bytes_added > once_bytes_max do
  if forget_once(redis.call('ZRANGE', once_key, 0, 99)) == 0 then break end
end
if once_bytes_added ~= 0 then
  redis.call('HSET', event_counts_key, 'seen_once_bytes', whole(math.max(0, once_bytes + once_bytes_added)))
end
for name, count in pairs(uncounted) do add_count(event_counts_key, name, count) end
return {'now', whole(damaged)}
