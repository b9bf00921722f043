-- KEYS: ended sessions. ARGV: how many there may be, the time, then pairs of when a session would
-- have ended and its nonce. Returns all that are not over, each with that time.
-- The clock of a process that is ahead does not make another's ended session valid again.
local now = math.min(tonumber(ARGV[2]), tonumber(redis.pcall('TIME')[1]) or math.huge)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now))
for i = 3, #ARGV, 2 do
  redis.call('ZADD', KEYS[1], ARGV[i], ARGV[i + 1])
end
redis.call('ZREMRANGEBYRANK', KEYS[1], 0, -1 - tonumber(ARGV[1]))
local found, pairs = redis.call('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES'), {}
for i = 1, #found, 2 do pairs[#pairs + 1] = { found[i], found[i + 1] } end
return pairs
