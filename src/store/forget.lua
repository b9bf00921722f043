-- Forgets a user and takes what they brought out of the counts.
--
-- KEYS: users, totals, hours, waiting, waiting-since, event-ids, event-ids-at,
--       event-counts, seen-once
-- ARGV: the ID that stands for the person
-- Returns whether there was anything.

local users_key, totals_key, hours_key = KEYS[1], KEYS[2], KEYS[3]
local waiting_key, since_key = KEYS[4], KEYS[5]
local wrong = wrong_type({'hash', 'hash', 'hash', 'hash', 'zset', 'zset', 'zset', 'hash', 'zset'})
if wrong then return wrong end
local id = text()
local record = redis.call('HGET', users_key, id)
if record then
  local user = read(record)
  if user then
    add_whole(user, -1)
    redis.call('ZREM', KEYS[9], id)
    add_count(KEYS[8], 'seen_once_bytes', -seen_once_bytes(id, record, user))
  end
  redis.call('HDEL', users_key, id)
  add_counts(totals_key, hours_key)
end
local waited = redis.call('HGET', waiting_key, id)
if waited then
  redis.call('HDEL', waiting_key, id)
  redis.call('ZREM', since_key, id)
  add_count(KEYS[8], 'waiting_bytes', -waiting_bytes(id, waited))
end
for _, member in ipairs(ids_of(KEYS[6], id_prefix(id))) do
  redis.call('ZREM', KEYS[6], member)
  redis.call('ZREM', KEYS[7], member)
end
return (record or waited) and 1 or 0
