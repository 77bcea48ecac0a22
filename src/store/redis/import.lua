-- ARGV: 1 attempt, 2 expected revision, 3 next revision, 4 sealed grant, 5 channel, 6 event, 7 the event's code.
if revision() ~= ARGV[2] then
  if redis.call('HGET', KEYS[1], 'attempt') ~= ARGV[1] then
    return 'moved'
  end
  again('attempt', ARGV[1])
  return 'done'
end
local _, time = now()
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'rev', ARGV[3], 'since', ARGV[3], 'attempt', ARGV[1], 'sealed', ARGV[4],
  'made_us', text(time))
publish(ARGV[5], ARGV[6], ARGV[7], ARGV[3] - 1, time)
return 'done'
