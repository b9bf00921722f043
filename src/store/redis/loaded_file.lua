-- KEYS: files, contents of files. ARGV: number of the file, the file, its content, files kept
local latest = tonumber(redis.call('HGET', KEYS[2], 'latest') or '0')
local number = tonumber(ARGV[1])
if latest + 1 ~= number then return 0 end
redis.call('LPUSH', KEYS[1], ARGV[2])
redis.call('LTRIM', KEYS[1], 0, ARGV[4] - 1)
redis.call('HSET', KEYS[2], 'latest', number, ARGV[1], ARGV[3])
redis.call('HDEL', KEYS[2], number - ARGV[4])
return 1
