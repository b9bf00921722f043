-- Merges into what is kept beside the counts: of numbers the smallest stays, of texts the first.
-- KEYS: lowest, first. ARGV: how many numbers, then field and number each; then field and text.
local count = tonumber(ARGV[1])
for i = 2, 2 * count, 2 do
  local known = redis.call('HGET', KEYS[1], ARGV[i])
  if not known or tonumber(ARGV[i + 1]) < tonumber(known) then
    redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
  end
end
for i = 2 * count + 2, #ARGV, 2 do redis.call('HSETNX', KEYS[2], ARGV[i], ARGV[i + 1]) end
