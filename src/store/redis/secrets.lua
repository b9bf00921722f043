-- KEYS: secrets. ARGV: how many there may be, then the secrets of one replica. Returns all of them.
local known, is_known = redis.call('LRANGE', KEYS[1], 0, -1), {}
for _, secret in ipairs(known) do is_known[secret] = true end
for i = 2, #ARGV do
  if #known < tonumber(ARGV[1]) and not is_known[ARGV[i]] then
    redis.call('RPUSH', KEYS[1], ARGV[i])
    known[#known + 1], is_known[ARGV[i]] = ARGV[i], true
  end
end
return known
