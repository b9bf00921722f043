-- KEYS: messages, due, taken. ARGV: the taker, the time, until when it takes, how many, and 1 if it has
-- just started. Returns how many messages there are, then the entry and the message of each
-- that it took.
if ARGV[5] == '1' then
  for _, entry in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '(' .. ARGV[2], '+inf')) do
    local by = redis.call('HGET', KEYS[3], entry)
    if not by or by == ARGV[1] then
      redis.call('ZADD', KEYS[2], ARGV[2], entry)
      redis.call('HDEL', KEYS[3], entry)
    end
  end
end
local found = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', ARGV[2], 'LIMIT', 0, ARGV[4])
local answer = { tostring(redis.call('HLEN', KEYS[1])) }
for _, entry in ipairs(found) do
  local message = redis.call('HGET', KEYS[1], entry)
  if message then
    redis.call('ZADD', KEYS[2], ARGV[3], entry)
    redis.call('HSET', KEYS[3], entry, ARGV[1])
    answer[#answer + 1], answer[#answer + 2] = entry, message
  else
    redis.call('ZREM', KEYS[2], entry)
  end
end
return answer
