-- KEYS: 1 grant (hash). The fields of a dead grant, and the time.
if redis.call('HEXISTS', KEYS[1], 'dead') == 0 then
  return {}
end
return { bounded(redis.call('HGETALL', KEYS[1])), redis.call('TIME') }
