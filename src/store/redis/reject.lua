-- ARGV: 1 generation, 2 channel, 3 event.
local gen = redis.call('HGET', KEYS[3], 'gen')
if gen and number(gen) <= tonumber(ARGV[1]) then
  redis.call('DEL', KEYS[3])
end
redis.call('PUBLISH', ARGV[2], ARGV[3])
return 'done'
