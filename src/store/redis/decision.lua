-- KEYS: controls, acts. ARGV: experiment, at_ms of the control expected (0 for none), next control, act, acts kept
local stands = redis.call('HGET', KEYS[1], ARGV[1])
local at_ms = stands and cjson.decode(stands).at_ms or 0
if at_ms ~= tonumber(ARGV[2]) then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
redis.call('LPUSH', KEYS[2], ARGV[4])
redis.call('LTRIM', KEYS[2], 0, ARGV[5] - 1)
return 1
