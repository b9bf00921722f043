-- Returns the key that digests are made with; the first that is offered is kept.
-- KEYS: forgotten. ARGV: a new key
local known = redis.call('ZRANGEBYSCORE', KEYS[1], 0, 0, 'LIMIT', 0, 1)
if #known > 0 then return known[1] end
redis.call('ZADD', KEYS[1], 0, ARGV[1])
return ARGV[1]
