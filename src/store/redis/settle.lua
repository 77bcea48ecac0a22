-- ARGV: 1 attempt, 2 expected revision, 3 verdict (backoff, unknown, dead), 4 cause, 5 wait in ms, 6 whether the try was early
-- ("1" or "0"), 7 when the broker may try a dead grant again, in ms (0: never), 8 sealed report (empty: none).
release(ARGV[1])
if revision() ~= ARGV[2] then
  return 'moved'
end
local row = redis.call('HMGET', KEYS[1], 'settled', 'fail', 'failures', 'retry_us', 'early_us', 'deaths')
local failures, deaths = number(row[3]), number(row[6])
if row[1] == ARGV[1] then
  again('settled', row[1])
  return 'done'
end
if ARGV[3] ~= 'unknown' then
  withdraw(ARGV[1])
end
local _, time = now()
if ARGV[3] == 'dead' then
  redis.call('HSET', KEYS[1], 'dead', ARGV[4], 'deaths', text(deaths + 1))
  redis.call('HDEL', KEYS[1], 'revive_us')
  if ARGV[7] ~= '0' then
    redis.call('HSET', KEYS[1], 'revive_us', text(time + tonumber(ARGV[7]) * 1000))
  end
end
-- Tries ahead of time count by themselves, so that a token that is needed begins with the shortest wait.
local were_early = row[2] and row[4] and row[4] == row[5]
local early = ARGV[6] == '1' and (were_early or not row[2])
if were_early and not early then
  failures = 0
end
local retry = text(time + tonumber(ARGV[5]) * 1000)
if ARGV[8] == '' then
  redis.call('HDEL', KEYS[1], 'report_rev', 'report')
else
  redis.call('HSET', KEYS[1], 'report_rev', ARGV[2], 'report', ARGV[8])
end
redis.call('HSET', KEYS[1], 'settled', ARGV[1], 'fail', ARGV[4], 'failures', text(failures + 1), 'retry_us', retry)
if early then
  redis.call('HSET', KEYS[1], 'early_us', retry)
else
  redis.call('HDEL', KEYS[1], 'early_us')
end
return 'done'
