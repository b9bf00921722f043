-- Keeps that users were forgotten, and that there is news.
-- KEYS: forgotten. ARGV: until_ms, from when on others are kept, digests of the IDs
for i = 3, #ARGV do redis.call('ZADD', KEYS[1], 'GT', ARGV[1], ARGV[i]) end
redis.call('ZINCRBY', KEYS[1], 1, 'version')
-- The version is a small number, and so before all times.
redis.call('ZREMRANGEBYSCORE', KEYS[1], 1000000000000, '(' .. ARGV[2])
