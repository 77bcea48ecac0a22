-- KEYS: 1 a hash that holds something sealed. ARGV: 1 the field of its revision, 2 the revision, 3 the sealed field,
-- 4 what it holds, 5 the same, sealed anew. A TTL stays, and nothing is published: nothing but the seal changed.
local row = redis.call('HMGET', KEYS[1], ARGV[1], ARGV[3])
if row[1] ~= ARGV[2] or row[2] ~= ARGV[4] then
  return 'moved'
end
redis.call('HSET', KEYS[1], ARGV[3], ARGV[5])
return 'done'
