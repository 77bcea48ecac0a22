-- ARGV: 1 the revision that the answer was computed from, 2 the one it would have become, 3 sealed answer.
local row = redis.call('HMGET', KEYS[1], 'rev', 'since', 'q_rev')
-- A grant that was handed over since took the place of the one that this belongs to, on purpose.
if not row[1] or number(row[2]) > tonumber(ARGV[1]) then
  return 'moved'
end
if number(row[3]) < tonumber(ARGV[2]) then
  redis.call('HSET', KEYS[1], 'q_rev', ARGV[2], 'q_sealed', ARGV[3])
else
  again('q_rev', row[3])
end
return 'done'
