-- ARGV: 1 attempt, 2 the revision that the answer was computed from, 3 the one it would have become, 4 sealed answer.
local row = redis.call('HMGET', KEYS[1], 'rev', 'since', 'q_rev', 'past')
-- A grant that was handed over since took the place of the one that this belongs to, on purpose. And an answer that was
-- stored has a successor, for which its refresh token was presented.
if not row[1] or number(row[2]) > tonumber(ARGV[2]) or string.find(row[4] or '', ARGV[1], 1, true) then
  return 'moved'
end
if number(row[3]) < tonumber(ARGV[3]) then
  redis.call('HSET', KEYS[1], 'q_rev', ARGV[3], 'q_sealed', ARGV[4])
else
  again('q_rev', row[3])
end
return 'done'
