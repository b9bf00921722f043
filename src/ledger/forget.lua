-- Forgets a user under every ID, and takes what they brought out of the counts.
--
-- KEYS: users, totals, hours, waiting, waiting-since, aliases
-- ARGV: id
-- Returns whether there was anything.

local users_key, totals_key, hours_key = KEYS[1], KEYS[2], KEYS[3]
local waiting_key, since_key, aliases_key = KEYS[4], KEYS[5], KEYS[6]
local id = resolve(aliases_key, text())
local record = redis.call('HGET', users_key, id)
if record then
  local user = read(record)
  add_whole(user, -1)
  for _, alias in ipairs(user.aliases) do
    local bytes = alias:sub(2):gsub('..', function(pair) return string.char(tonumber(pair, 16)) end)
    redis.call('HDEL', aliases_key, bytes)
  end
  redis.call('HDEL', users_key, id)
  add_counts(totals_key, hours_key)
end
local waited = redis.call('HDEL', waiting_key, id)
redis.call('ZREM', since_key, id)
return (record or waited > 0) and 1 or 0
