-- ARGV: 1 attempt, 2 expected revision, 3 next revision, 4 sealed grant.
release(ARGV[1])
if revision() ~= ARGV[2] then
  if redis.call('HGET', KEYS[1], 'attempt') ~= ARGV[1] then
    return 'moved'
  end
  again('attempt', ARGV[1])
  return 'done'
end
local _, time = now()
forget()
redis.call('HSET', KEYS[1], 'rev', ARGV[3], 'past', past(), 'attempt', ARGV[1], 'sealed', ARGV[4],
  'made_us', text(time))
return 'done'
