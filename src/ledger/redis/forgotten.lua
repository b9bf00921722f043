-- Keeps that users were forgotten, and that there is news.
-- KEYS: forgotten. ARGV: until_ms, how long it is kept, digests of the IDs
-- The clock of a process that is ahead does not end what others keep.
local seconds = tonumber(redis.call('TIME')[1])
local keep_from_ms = math.min(tonumber(ARGV[1]), seconds * 1000) - tonumber(ARGV[2])
for i = 3, #ARGV do redis.call('ZADD', KEYS[1], 'GT', ARGV[1], ARGV[i]) end
redis.call('ZINCRBY', KEYS[1], 1, 'version')
-- The version is a small number, and so before all times.
redis.call('ZREMRANGEBYSCORE', KEYS[1], 1000000000000, '(' .. string.format('%.0f', keep_from_ms))
