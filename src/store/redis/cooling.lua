-- KEYS: 1 rest (string, PX).
return { bounded({ redis.call('GET', KEYS[1]) })[1] or '', redis.call('PTTL', KEYS[1]) }
