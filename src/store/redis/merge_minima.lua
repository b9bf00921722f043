-- Merges into what is kept beside the counts: of numbers the smallest stays, with its time, of texts
-- the first.
-- KEYS: lowest, first. ARGV: how many numbers, then for each its field, the number, the field of its
-- time and the time (empty where it is unknown); then field and text.
local count = tonumber(ARGV[1])
for i = 2, 4 * count, 4 do
  local known = redis.call('HGET', KEYS[1], ARGV[i])
  if not known or tonumber(ARGV[i + 1]) < tonumber(known) then
    redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
    if ARGV[i + 3] == '' then
      redis.call('HDEL', KEYS[1], ARGV[i + 2])
    else
      redis.call('HSET', KEYS[1], ARGV[i + 2], ARGV[i + 3])
    end
  end
end
for i = 4 * count + 2, #ARGV, 2 do redis.call('HSETNX', KEYS[2], ARGV[i], ARGV[i + 1]) end
