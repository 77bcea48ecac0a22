-- ARGV: 1 attempt, 2 expected revision, 3 verdict (backoff, unknown, dead), 4 cause, 5 wait in ms.
release(ARGV[1])
if revision() ~= ARGV[2] then
  return 'moved'
end
local row = redis.call('HMGET', KEYS[1], 'settled', 'intent', 'sends', 'failures')
local sends, failures = number(row[3]), number(row[4])
if row[1] == ARGV[1] then
  again('settled', row[1])
  return 'done'
end
-- Only a definitive outcome withdraws the intent; an older one, of a try that went unanswered, stays.
if ARGV[3] ~= 'unknown' and row[2] == ARGV[1] then
  if sends <= 1 then
    redis.call('HDEL', KEYS[1], 'intent', 'intent_us', 'sends')
  else
    redis.call('HSET', KEYS[1], 'sends', text(sends - 1))
  end
end
if ARGV[3] == 'dead' then
  redis.call('HSET', KEYS[1], 'dead', ARGV[4])
end
local _, time = now()
redis.call('HSET', KEYS[1], 'settled', ARGV[1], 'fail', ARGV[4], 'failures', text(failures + 1),
  'retry_us', text(time + tonumber(ARGV[5]) * 1000))
return 'done'
