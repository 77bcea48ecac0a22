-- KEYS: 1 a hash that holds something sealed. ARGV: 1 the field of its revision, 2 the sealed field.
return bounded(redis.call('HMGET', KEYS[1], ARGV[1], ARGV[2]))
