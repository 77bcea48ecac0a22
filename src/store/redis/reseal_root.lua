-- KEYS: 1 the key of names (string). ARGV: 1 what it holds, 2 the same, sealed anew.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return 'moved'
end
redis.call('SET', KEYS[1], ARGV[2])
return 'done'
