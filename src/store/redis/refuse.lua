-- ARGV: 1 attempt, 2 expected revision, 3 cause, 4 wait in ms, 5 whether the try was early ("1" or "0"), 6 how long the refusal
-- is remembered in ms, 7 how long claims that yield wait, in ms.
release(ARGV[1])
if revision() ~= ARGV[2] then
  return 'moved'
end
local row = redis.call('HMGET', KEYS[1], 'settled', 'since')
if row[1] == ARGV[1] then
  again('settled', row[1])
  return 'done'
end
local known = refusal(row[2])
local count, were_early = known[2] or 0, known[4]
local early = ARGV[5] == '1' and (were_early or not known[1])
if were_early and not early then
  count = 0
end
withdraw(ARGV[1])
local _, time = now()
redis.call('HSET', KEYS[1], 'settled', ARGV[1], 'give_way_us', text(time + tonumber(ARGV[7]) * 1000))
redis.call('HSET', KEYS[4], 'cause', ARGV[3], 'count', text(count + 1), 'retry_us', text(time + tonumber(ARGV[4]) * 1000),
  'early', early and '1' or '0', 'since', row[2] or '0')
redis.call('PEXPIRE', KEYS[4], ARGV[6])
return 'done'
