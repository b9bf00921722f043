-- KEYS: lease, entries. ARGV: the owner, for how many milliseconds it wants the lease (0 to give it back, empty to keep it as it
-- is), then the names and texts of entries; an empty text removes one. Returns 1 if the owner has the lease, or
-- nobody else has.
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
if ARGV[2] == '' then
  if not holder then return 0 end
elseif ARGV[2] == '0' then
  redis.call('DEL', KEYS[1])
else
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
end
for i = 3, #ARGV, 2 do
  if ARGV[i + 1] == '' then
    redis.call('HDEL', KEYS[2], ARGV[i])
  else
    redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1])
  end
end
return 1
