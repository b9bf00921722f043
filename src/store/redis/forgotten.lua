-- Keeps that users were forgotten, and that there is news.
-- KEYS: forgotten. ARGV: until_ms, how long it is kept, the key of the digests, digests of the IDs
-- The clock of a process that is ahead does not end what others keep.
local seconds = tonumber(redis.pcall('TIME')[1]) or math.huge
local keep_from_ms = math.min(tonumber(ARGV[1]), seconds * 1000) - tonumber(ARGV[2])
-- In case that the key was lost since it was asked for.
redis.call('ZADD', KEYS[1], 'NX', 0, ARGV[3])
for i = 4, #ARGV do redis.call('ZADD', KEYS[1], 'GT', ARGV[1], ARGV[i]) end
redis.call('ZINCRBY', KEYS[1], 1, 'version')
-- The version is a small number, and the key is at 0: both are before all times.
redis.call('ZREMRANGEBYSCORE', KEYS[1], 1000000000000, '(' .. string.format('%.0f', keep_from_ms))
