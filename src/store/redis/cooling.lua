-- KEYS: 1 rest (string, PX).
return { redis.call('GET', KEYS[1]) or '', redis.call('PTTL', KEYS[1]) }
