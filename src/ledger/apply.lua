-- Adds one part to one shard: all of it or, when the shard has been given something else than
-- the part says, none of it. The semantics are those of account.rs; a test holds both to one model.
--
-- KEYS: users, totals, hours, epochs, applied
-- ARGV, in this order, each list after its length:
--   spans:   journal, after, through
--   epochs:  digest, first_ms, definition
--   totals:  field, addition                    (what the answers add, whoever the users are)
--   hours:   field, addition
--   users:   id, then exposures: at_ms, epoch, group
--                then events:    at_ms, metric, within_ms or '', count, sum, base
-- Returns {'now'}, {'before'}, or {'mismatch', what the shard has of each span's journal}.
--
-- Every number here is below 2^53, where doubles are exact. Sums grow beyond that, so they are
-- added in limbs of seven decimal digits, each a field of its own.

local TOLERANCE_MS, USER_MAX, LIMB, HOUR_MS = 2000, 1e15, 1e7, 3600000
local users_key, totals_key, hours_key, epochs_key, applied_key = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]

local place = 0
local function text() place = place + 1; return ARGV[place] end
local function number() place = place + 1; return tonumber(ARGV[place]) end
local function whole(value) return string.format('%.0f', value) end

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

local totals, hours = {}, {}
local function add_to(sums, field, value) sums[field] = (sums[field] or 0) + value end
for i = 1, number() do add_to(totals, text(), number()) end
for i = 1, number() do add_to(hours, text(), number()) end

local function add(user, what, value)
  if value ~= 0 then
    local field = user.epoch .. '|' .. user.group .. '|' .. what
    add_to(totals, field, value)
    add_to(hours, whole(math.floor(user.first_ms / HOUR_MS)) .. '|' .. field, value)
  end
end

-- The limbs of a number, all of its sign; fmod keeps it exact.
local function limbs(value)
  local low = math.fmod(value, LIMB)
  local rest = (value - low) / LIMB
  local middle = math.fmod(rest, LIMB)
  return {low, middle, (rest - middle) / LIMB}
end

local function add_sum(user, what, value)
  for k, limb in ipairs(limbs(value)) do add(user, what .. '.' .. (k - 1), limb) end
end

-- Adds sign·a·b. Products of limbs are below 10^14, so that three of them and a carry are exact.
local function add_product(user, what, a, b, sign)
  if a == 0 or b == 0 then return end
  local x, y, sums, carry = limbs(a), limbs(b), {0, 0, 0, 0, 0}, 0
  for i = 1, 3 do
    for j = 1, 3 do sums[i + j - 1] = sums[i + j - 1] + x[i] * y[j] end
  end
  for k = 1, 5 do
    local sum = sums[k] + carry
    local limb = k < 5 and math.fmod(sum, LIMB) or sum
    carry = (sum - limb) / LIMB
    add(user, what .. '.' .. (k - 1), sign * limb)
  end
end

local function bounded(old, more) return math.max(-USER_MAX, math.min(USER_MAX, old + more)) end

local function read(record)
  local words = {}
  for word in record:gmatch('[^ ]+') do words[#words + 1] = word end
  local user = {group = words[1], epoch = words[2], first_ms = tonumber(words[3]), crossed = words[4], metrics = {}, names = {}}
  for i = 5, #words do
    local name, count, sum, base = words[i]:match('^([^:]+):([^:]+):([^:]+):([^:]+)$')
    user.metrics[name] = {tonumber(count), tonumber(sum), tonumber(base)}
    user.names[#user.names + 1] = name
  end
  return user
end

local function write(user)
  table.sort(user.names)
  local words = {user.group, user.epoch, whole(user.first_ms), user.crossed}
  for _, name in ipairs(user.names) do
    local of = user.metrics[name]
    words[#words + 1] = name .. ':' .. whole(of[1]) .. ':' .. whole(of[2]) .. ':' .. whole(of[3])
  end
  return table.concat(words, ' ')
end

local function seen(user, at_ms, group)
  if group == user.group then
    user.first_ms = math.min(user.first_ms, at_ms)
  elseif user.crossed == '0' then
    user.crossed = '1'
    add(user, 'crossed_over', 1)
  end
end

local function event(user, at_ms, metric, within_ms, count, sum, base)
  if at_ms + TOLERANCE_MS < user.first_ms then return end
  if within_ms and at_ms > user.first_ms + within_ms then return end
  local old = user.metrics[metric]
  if not old then
    old = {0, 0, 0}
    user.names[#user.names + 1] = metric
  end
  local new = {bounded(old[1], count), bounded(old[2], sum), bounded(old[3], base)}
  user.metrics[metric] = new
  local m = 'm:' .. metric .. ':'
  if old[1] == 0 and new[1] > 0 then add(user, m .. 'converted', 1) end
  add(user, m .. 'count', new[1] - old[1])
  add_product(user, m .. 'count_sq', new[1], new[1], 1)
  add_product(user, m .. 'count_sq', old[1], old[1], -1)
  add_sum(user, m .. 'sum', new[2] - old[2])
  add_product(user, m .. 'sum_sq', new[2], new[2], 1)
  add_product(user, m .. 'sum_sq', old[2], old[2], -1)
  add_sum(user, m .. 'base', new[3] - old[3])
  add_product(user, m .. 'base_sq', new[3], new[3], 1)
  add_product(user, m .. 'base_sq', old[3], old[3], -1)
  add_product(user, m .. 'cross', new[2], new[3], 1)
  add_product(user, m .. 'cross', old[2], old[3], -1)
end

local changed = {}
for _ = 1, number() do
  local id = text()
  local record = redis.call('HGET', users_key, id)
  local user = record and read(record)
  for _ = 1, number() do
    local at_ms, epoch, group = number(), text(), text()
    if not user then
      user = {group = group, epoch = epoch, first_ms = at_ms, crossed = '0', metrics = {}, names = {}}
      add(user, 'users', 1)
    end
    seen(user, at_ms, group)
  end
  for _ = 1, number() do
    local at_ms, metric, within_ms, count, sum, base = number(), text(), number(), number(), number(), number()
    if user then event(user, at_ms, metric, within_ms, count, sum, base) end
  end
  if user then
    local after = write(user)
    if after ~= record then changed[#changed + 1] = id; changed[#changed + 1] = after end
  end
end

-- Nothing was written so far. A Redis that must not be written to (out of memory, a replica, a
-- full disk) refuses the first of these, and with it the whole.
for _, span in ipairs(spans) do redis.call('HSET', applied_key, span.journal, span.through) end
for _, epoch in ipairs(epochs) do redis.call('HSET', epochs_key, epoch.digest, whole(epoch.first_ms) .. ' ' .. epoch.definition) end
for i = 1, #changed, 2 do redis.call('HSET', users_key, changed[i], changed[i + 1]) end
for field, value in pairs(totals) do if value ~= 0 then redis.call('HINCRBY', totals_key, field, whole(value)) end end
for field, value in pairs(hours) do if value ~= 0 then redis.call('HINCRBY', hours_key, field, whole(value)) end end
return {'now'}
