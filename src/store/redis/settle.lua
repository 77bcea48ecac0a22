-- ARGV: 1 attempt, 2 expected revision, 3 verdict (backoff, unknown, dead), 4 cause, 5 wait in ms.
release(ARGV[1])
if revision() ~= ARGV[2] then
  return 'moved'
end
local row = redis.call('HMGET', KEYS[1], 'settled', 'intent')
if row[1] == ARGV[1] then
  return 'done'
end
-- Only a definitive outcome withdraws the intent; an older one, of a try that went unanswered, stays.
if ARGV[3] ~= 'unknown' and row[2] == ARGV[1] then
  if redis.call('HINCRBY', KEYS[1], 'sends', -1) <= 0 then
    redis.call('HDEL', KEYS[1], 'intent', 'intent_us', 'sends')
  end
end
if ARGV[3] == 'dead' then
  redis.call('HSET', KEYS[1], 'dead', ARGV[4])
end
local _, time = now()
redis.call('HINCRBY', KEYS[1], 'failures', 1)
redis.call('HSET', KEYS[1], 'settled', ARGV[1], 'fail', ARGV[4], 'retry_us', text(time + tonumber(ARGV[5]) * 1000))
return 'done'
