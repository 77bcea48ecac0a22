-- KEYS: 1 the key of names (string).
return bounded({ redis.call('GET', KEYS[1]) })[1]
