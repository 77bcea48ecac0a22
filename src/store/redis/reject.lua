-- ARGV: 1 generation, 2 strikes, 3 channel, 4 event, 5 the event's code.
local gen = redis.call('HGET', KEYS[3], 'gen')
if gen and number(gen) <= tonumber(ARGV[1]) then
  redis.call('DEL', KEYS[3])
end
if redis.call('HGET', KEYS[1], 'rev') then
  redis.call('HSET', KEYS[1], 'strikes', ARGV[2])
end
local _, time = now()
publish(ARGV[3], ARGV[4], ARGV[5], ARGV[1], time)
return 'done'
