-- KEYS: reported, messages, due. ARGV: event, its time, its quiet time, how many events and messages there
-- may be, then an entry and a message for each receiver. Returns `known`, `new` or `full`.
local last = tonumber(redis.call('ZSCORE', KEYS[1], ARGV[1]) or nil)
local at = tonumber(ARGV[2])
local is_known = last and at < last + tonumber(ARGV[3])
if not is_known then
  local more = (#ARGV - 5) / 2
  if redis.call('HLEN', KEYS[2]) + more > tonumber(ARGV[5]) then return 'full' end
  for i = 6, #ARGV, 2 do
    if redis.call('HSETNX', KEYS[2], ARGV[i], ARGV[i + 1]) == 1 then
      redis.call('ZADD', KEYS[3], ARGV[2], ARGV[i])
    end
  end
end
if not last or at > last then redis.call('ZADD', KEYS[1], ARGV[2], ARGV[1]) end
redis.call('ZREMRANGEBYRANK', KEYS[1], 0, -1 - tonumber(ARGV[4]))
return is_known and 'known' or 'new'
