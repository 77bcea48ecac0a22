-- ARGV: 1 attempt, 2 expected revision, 3 what must be left of the lease in ms, 4 the intent that the claim found.
if redis.call('GET', KEYS[2]) ~= ARGV[1] or redis.call('PTTL', KEYS[2]) < tonumber(ARGV[3]) then
  return 'lost'
end
if revision() ~= ARGV[2] then
  return 'moved'
end
local row = redis.call('HMGET', KEYS[1], 'intent', 'sends')
local intent, sends = row[1] or '', number(row[2])
if intent == ARGV[1] then
  again('intent', intent)
  return 'go'
end
if intent ~= ARGV[4] then
  return 'moved'
end
local _, time = now()
redis.call('HSETNX', KEYS[1], 'intent_us', text(time))
redis.call('HSET', KEYS[1], 'intent', ARGV[1], 'sent_us', text(time), 'sends', text(sends + 1))
return 'go'
