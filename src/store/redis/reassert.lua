-- ARGV: 1 attempt, 2 revision, 3 sealed grant, 4 sealed token (empty: none), 5 token's TTL in ms (0: none), 6 channel,
-- 7 event, 8 the event's code.
if number(redis.call('HGET', KEYS[1], 'rev')) >= tonumber(ARGV[2]) then
  return 'moved'
end
local _, time = now()
forget()
redis.call('HSET', KEYS[1], 'rev', ARGV[2], 'since', ARGV[2], 'attempt', ARGV[1], 'sealed', ARGV[3],
  'made_us', text(time))
if ARGV[4] ~= '' then
  redis.call('DEL', KEYS[3])
  redis.call('HSET', KEYS[3], 'gen', ARGV[2], 'sealed', ARGV[4])
  if ARGV[5] ~= '0' then
    redis.call('PEXPIRE', KEYS[3], ARGV[5])
  end
end
publish(ARGV[6], ARGV[7], ARGV[8], ARGV[2] - 1, time)
return 'done'
