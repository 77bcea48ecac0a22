-- ARGV: 1 attempt, 2 expected revision, 3 next revision, 4 sealed grant, 5 sealed token, 6 token's TTL in ms (0: none),
-- 7 channel, 8 event, 9 token's whole life in ms, 10 the event's code.
-- The fence is the revision and not the lease: an answer that came late may hold the only living refresh token.
if revision() ~= ARGV[2] then
  local done = redis.call('HGET', KEYS[1], 'attempt') == ARGV[1]
  if done then
    again('attempt', ARGV[1])
  end
  release(ARGV[1])
  return done and 'done' or 'moved'
end
local _, time = now()
forget()
redis.call('HSET', KEYS[1], 'rev', ARGV[3], 'past', past(), 'attempt', ARGV[1], 'sealed', ARGV[4],
  'made_us', text(time))
redis.call('DEL', KEYS[3], KEYS[4])
redis.call('HSET', KEYS[3], 'gen', ARGV[3], 'sealed', ARGV[5])
if ARGV[6] ~= '0' then
  -- What was left was true when this was sent, and it may have waited for long. The next revision is the time here before
  -- the token was asked for, so it ends no later than its whole life after that.
  local most = (tonumber(ARGV[3]) - time) / 1000 + tonumber(ARGV[9])
  redis.call('PEXPIRE', KEYS[3], text(math.max(1, math.min(tonumber(ARGV[6]), math.floor(most)))))
end
publish(ARGV[7], ARGV[8], ARGV[10], ARGV[3] - 1, time)
release(ARGV[1])
return 'done'
