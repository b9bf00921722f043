-- What a user's facts add to which count: the semantics of account.rs, in the language of Redis. A
-- test holds both to one model. The scripts that begin with this file write `totals` and `hours`.
--
-- Every number here is below 2^53, where doubles are exact. Sums grow beyond that, so they are
-- added in limbs of seven decimal digits, each a field of its own.

local TOLERANCE_MS, USER_MAX, LIMB, HOUR_MS = 2000, 1e15, 1e7, 3600000
local CAME_BACK = '~came-back'
local WAITING_MAX, WAITING_BYTES_MAX, WAITING_OVERHEAD, EXPOSED_MS = 64, 4096, 150, 1e15

local place = 0
local function text() place = place + 1; return ARGV[place] end
local function number() place = place + 1; return tonumber(ARGV[place]) end
local function whole(value) return string.format('%.0f', value) end

local totals, hours = {}, {}
local function add_to(sums, field, value) sums[field] = (sums[field] or 0) + value end
local function field_of(user, what) return user.epoch .. '|' .. user.group .. '|' .. what end

-- The segment of users who were seen in a second group, besides those of the first exposure.
local CROSSED_OVER = '~crossed=yes'
local function own_segments(user)
  local own = user.segments
  if own:sub(-#CROSSED_OVER) == CROSSED_OVER then own = own:sub(1, -#CROSSED_OVER - 1):gsub('%+$', ''):gsub(',$', '') end
  return own
end

-- The parts that a user is counted in: the segments and, of a user who crossed over, that segment with the same ones
-- within. Those after a '+' are also counted by hour. An earlier version wrote none, and divided no crossovers.
local function parts_of(user)
  if user.parts_of == user.segments then return user.parts end
  local parts, is_divided = {}, false
  for mark, segment in user.segments:gmatch('(%+?)([^,]+)') do
    parts[#parts + 1] = {prefix = 's:' .. segment .. ':', by_hour = mark == '+'}
    is_divided = mark == '+' and segment == CROSSED_OVER
  end
  for mark, segment in (is_divided and own_segments(user) or ''):gmatch('(%+?)([^,]+)') do
    parts[#parts + 1] = {prefix = 's:' .. CROSSED_OVER .. ':s:' .. segment .. ':', by_hour = mark == '+'}
  end
  user.parts_of, user.parts = user.segments, parts
  return parts
end

-- To totals, and to those of each of the user's parts.
local function add_total(user, what, value)
  add_to(totals, field_of(user, what), value)
  for _, part in ipairs(parts_of(user)) do add_to(totals, field_of(user, part.prefix .. what), value) end
end

local function add(user, what, value)
  if value ~= 0 and (not user.seen_once or what == 'seen_once') then
    add_total(user, what, value)
    local hour = whole(math.floor(user.first_ms / HOUR_MS)) .. '|'
    add_to(hours, hour .. field_of(user, what), value)
    for _, part in ipairs(parts_of(user)) do
      if part.by_hour then add_to(hours, hour .. field_of(user, part.prefix .. what), value) end
    end
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

-- The lower of two caps, so that the order in which events arrive does not matter.
local function lower(one, other)
  if one and other then return math.min(one, other) end
  return one or other
end

-- The sum from before the first exposure, up to the cap; 1 if it is known, and else 0.
local function counted_before(of)
  if not of[5] then return 0, 0 end
  return of[4] and math.max(-of[4], math.min(of[4], of[5])) or of[5], 1
end

-- A user's sum of a metric as it counts: up to the cap, in size.
local function counted(of) return of[4] and math.max(-of[4], math.min(of[4], of[2])) or of[2] end

local function bounded(old, more) return math.max(-USER_MAX, math.min(USER_MAX, old + more)) end

-- What cannot be read is skipped and counted, so that it stops nobody else's.
local damaged = 0

local function read(record)
  local words = {}
  for word in record:gmatch('[^ ]+') do words[#words + 1] = word end
  -- After an '@' each: the bucket of the first exposure's latency, and the segments, where they are known.
  local crossed, latency, segments = (words[4] or ''):match('^([0-3])@?(%d*)@?([^@]*)$')
  local user = {group = words[1], epoch = words[2], first_ms = tonumber(words[3]), crossed = crossed, latency = tonumber(latency),
    segments = segments, metrics = {}, names = {}}
  if not (user.crossed and user.first_ms) then damaged = damaged + 1; return nil end
  user.seen_once = user.crossed == '2' or user.crossed == '3'
  user.crossed = (user.crossed == '1' or user.crossed == '3') and '1' or '0'
  for i = 5, #words do
    -- Version 0.1.0 kept IDs of events here, each after a '#'.
    if words[i]:sub(1, 1) ~= '#' then
      local name, count, sum, base, cap, before = words[i]:match('^([^:]+):(%d+):(-?%d+):(-?%d+):?(%d*)<?(-?%d*)$')
      if not name then damaged = damaged + 1; return nil end
      user.metrics[name] = {tonumber(count), tonumber(sum), tonumber(base), tonumber(cap), tonumber(before)}
      user.names[#user.names + 1] = name
    end
  end
  return user
end

local function write(user)
  table.sort(user.names)
  local crossed = user.seen_once and whole(2 + tonumber(user.crossed)) or user.crossed
  if user.latency or user.segments ~= '' then crossed = crossed .. '@' .. (user.latency and whole(user.latency) or '') end
  if user.segments ~= '' then crossed = crossed .. '@' .. user.segments end
  local words = {user.group, user.epoch, whole(user.first_ms), crossed}
  for _, name in ipairs(user.names) do
    local of = user.metrics[name]
    local cap = of[4] and ':' .. whole(of[4]) or ''
    words[#words + 1] = name .. ':' .. whole(of[1]) .. ':' .. whole(of[2]) .. ':' .. whole(of[3]) .. cap
      .. (of[5] and '<' .. whole(of[5]) or '')
  end
  return table.concat(words, ' ')
end

-- Adds the difference that a user's new values of a metric make.
local function add_metric(user, metric, old, new, sign)
  local m, old_sum, new_sum = 'm:' .. metric .. ':', counted(old), counted(new)
  local old_cut, new_cut = math.abs(old[2] - old_sum), math.abs(new[2] - new_sum)
  if old[1] == 0 and new[1] > 0 then add(user, m .. 'converted', sign) end
  add(user, m .. 'count', sign * (new[1] - old[1]))
  add_product(user, m .. 'count_sq', new[1], new[1], sign)
  add_product(user, m .. 'count_sq', old[1], old[1], -sign)
  add_sum(user, m .. 'sum', sign * (new_sum - old_sum))
  add_product(user, m .. 'sum_sq', new_sum, new_sum, sign)
  add_product(user, m .. 'sum_sq', old_sum, old_sum, -sign)
  add_sum(user, m .. 'base', sign * (new[3] - old[3]))
  add_product(user, m .. 'base_sq', new[3], new[3], sign)
  add_product(user, m .. 'base_sq', old[3], old[3], -sign)
  add_product(user, m .. 'cross', new_sum, new[3], sign)
  add_product(user, m .. 'cross', old_sum, old[3], -sign)
  add(user, m .. 'capped', sign * ((new_cut > 0 and 1 or 0) - (old_cut > 0 and 1 or 0)))
  add_sum(user, m .. 'cut', sign * (new_cut - old_cut))
  -- Most metrics have no covariate.
  if not (old[5] or new[5]) then return end
  local old_before, old_known = counted_before(old)
  local new_before, new_known = counted_before(new)
  add(user, m .. 'known', sign * (new_known - old_known))
  add_sum(user, m .. 'known_sum', sign * (new_known * new_sum - old_known * old_sum))
  add_sum(user, m .. 'before', sign * (new_before - old_before))
  add_product(user, m .. 'before_sq', new_before, new_before, sign)
  add_product(user, m .. 'before_sq', old_before, old_before, -sign)
  add_product(user, m .. 'before_cross', new_before, new_sum, sign)
  add_product(user, m .. 'before_cross', old_before, old_sum, -sign)
end

-- Adds (or, with a sign of -1, takes out) all that a user brings.
local function add_whole(user, sign)
  if user.seen_once then return add(user, 'seen_once', sign) end
  add(user, 'users', sign)
  if user.latency then add_total(user, 'first_latency:' .. whole(user.latency), sign) end
  if user.crossed == '1' then add(user, 'crossed_over', sign) end
  for metric, values in pairs(user.metrics) do add_metric(user, metric, {0, 0, 0}, values, sign) end
end

-- One that an earlier version wrote without a '+' stays so: what is taken out is what was added.
local function crosses_over(user)
  user.crossed = '1'
  if own_segments(user) == user.segments then
    user.segments = user.segments .. (user.segments == '' and '' or ',') .. '+' .. CROSSED_OVER
  end
end

-- Equal times are parted by epoch, group, latency and segments, so that the order of arrival does not matter.
local function earlier(at_ms, epoch, group, latency, segments, user)
  if at_ms ~= user.first_ms then return at_ms < user.first_ms end
  if epoch ~= user.epoch then return epoch < user.epoch end
  if group ~= user.group then return group < user.group end
  if (latency or -1) ~= (user.latency or -1) then return (latency or -1) < (user.latency or -1) end
  return segments < own_segments(user)
end

-- Counts a visitor whose minted ID has come back.
local function came_back(user)
  if not user.seen_once then return end
  add_whole(user, -1)
  user.seen_once = false
  add_whole(user, 1)
end

local function seen(user, at_ms, epoch, group, latency, segments)
  if group ~= user.group and user.crossed == '0' then
    add_whole(user, -1)
    crosses_over(user)
    add_whole(user, 1)
  end
  if earlier(at_ms, epoch, group, latency, segments, user) then
    add_whole(user, -1)
    local is_apart = own_segments(user) ~= user.segments
    user.group, user.epoch, user.first_ms, user.latency, user.segments = group, epoch, at_ms, latency, segments
    if is_apart then crosses_over(user) end
    -- Some of what came before the old time came after this one.
    for _, of in pairs(user.metrics) do of[5] = nil end
    add_whole(user, 1)
  end
end

-- False for an event that comes before the first exposure that is known: it waits. `admit` says
-- whether an event with an ID is to be counted.
local function event(user, of, admit)
  if of.metric == CAME_BACK then return true end
  if of.at_ms + TOLERANCE_MS < user.first_ms then return false end
  if of.within_ms and of.at_ms > user.first_ms + of.within_ms then return true end
  if of.id ~= '' and not admit(of) then return true end
  local old = user.metrics[of.metric]
  if not old then
    old = {0, 0, 0}
    user.names[#user.names + 1] = of.metric
  end
  local new = {bounded(old[1], of.count), bounded(old[2], of.sum), bounded(old[3], of.base), lower(old[4], of.cap), old[5]}
  user.metrics[of.metric] = new
  add_metric(user, of.metric, old, new, 1)
  return true
end

-- Adds up what a user's waiting events brought before the first exposure, by metric: those of its
-- covariate's time that were reported before. What was known of other metrics stays as it is.
local function covariates(user, waiting)
  local sums, caps = {}, {}
  for _, of in ipairs(waiting) do
    if of.covariate_ms and of.reported_ms < user.first_ms and of.at_ms + of.covariate_ms >= user.first_ms then
      sums[of.metric] = bounded(sums[of.metric] or 0, of.sum)
      caps[of.metric] = lower(caps[of.metric], of.cap)
    end
  end
  for metric, sum in pairs(sums) do
    local old = user.metrics[metric]
    if not old then
      old = {0, 0, 0}
      user.names[#user.names + 1] = metric
    end
    local new = {old[1], old[2], old[3], lower(old[4], caps[metric]), sum}
    user.metrics[metric] = new
    add_metric(user, metric, old, new, 1)
  end
end

-- One record of two.
local function joined(first, second)
  if earlier(second.first_ms, second.epoch, second.group, second.latency, own_segments(second), first) then first, second = second, first end
  if first.crossed == '1' or second.crossed == '1' or first.group ~= second.group then crosses_over(first) end
  for metric, values in pairs(second.metrics) do
    local of = first.metrics[metric]
    if not of then
      of = {0, 0, 0}
      first.names[#first.names + 1] = metric
    end
    first.metrics[metric] = {bounded(of[1], values[1]), bounded(of[2], values[2]), bounded(of[3], values[3]), lower(of[4], values[4]), of[5]}
  end
  return first
end

-- The IDs of a user's events, as `event-ids` holds them: each begins with the length of the user's
-- ID, so that no user's are between another's. All have the same score, so they lie in this order.
local function id_prefix(user) return string.format('%04x', #user) .. user .. ':' end
local function ids_of(key, prefix)
  return redis.call('ZRANGEBYLEX', key, '[' .. prefix .. '0000000000000000', '[' .. prefix .. 'ffffffffffffffff')
end

local function write_event(of)
  local within = of.within_ms and whole(of.within_ms) or ''
  local times = whole(of.at_ms)
  if of.reported_ms ~= of.at_ms then times = times .. '/' .. whole(of.reported_ms) end
  local words = {times, of.metric, within, whole(of.count), whole(of.sum), whole(of.base), of.id}
  if of.cap or of.covariate_ms then words[#words + 1] = of.cap and whole(of.cap) or '' end
  if of.covariate_ms then words[#words + 1] = whole(of.covariate_ms) end
  return table.concat(words, ':')
end

local function read_events(words)
  local events = {}
  for word in (words or ''):gmatch('[^ ]+') do
    local at_ms, reported_ms, metric, within_ms, count, sum, base, id, cap, covariate_ms =
      word:match('^(%d+)/?(%d*):([^:]+):(%d*):([^:]+):([^:]+):([^:]+):(%x*):?(%d*):?(%d*)$')
    if at_ms and tonumber(count) and tonumber(sum) and tonumber(base) then
      events[#events + 1] = {at_ms = tonumber(at_ms), reported_ms = tonumber(reported_ms) or tonumber(at_ms), metric = metric, within_ms = tonumber(within_ms), count = tonumber(count),
        sum = tonumber(sum), base = tonumber(base), id = id, cap = tonumber(cap), covariate_ms = tonumber(covariate_ms)}
    else
      damaged = damaged + 1
    end
  end
  return events
end

-- What a user's waiting events cost: see waiting.rs.
local function waiting_bytes(id, words) return words and WAITING_OVERHEAD + 2 * #id + #words or 0 end

-- What a visitor who was seen once costs: see seen_once.rs.
local function seen_once_bytes(id, record, user) return user and user.seen_once and WAITING_OVERHEAD + 2 * #id + #record or 0 end

-- The error to return, before anything is written, where a key has another type than expected.
local function wrong_type(expected)
  local sizes = {hash = 'HLEN', zset = 'ZCARD'}
  for i, kind in ipairs(expected) do
    local size = redis.pcall(sizes[kind], KEYS[i])
    if type(size) == 'table' then
      if not size.err:find('WRONGTYPE') then return size end
      return redis.error_reply('WRONGTYPE the key ' .. KEYS[i] .. ' holds something else than a ' .. kind)
    end
  end
end

-- Unix milliseconds by the clock of Redis, which all processes share; without the right to ask for
-- it, later than any time.
local function now_ms()
  local time = redis.pcall('TIME')
  if time.err then return math.huge end
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

local function add_count(key, field, value)
  if value == 0 then return end
  local added = redis.pcall('HINCRBY', key, field, whole(value))
  if type(added) == 'table' and added.err then
    if not added.err:find('not an integer') then error(added.err) end
    damaged = damaged + 1
    redis.call('HSET', key, field, whole(value))
  end
end

local function add_counts(totals_key, hours_key)
  for field, value in pairs(totals) do add_count(totals_key, field, value) end
  for field, value in pairs(hours) do add_count(hours_key, field, value) end
end

