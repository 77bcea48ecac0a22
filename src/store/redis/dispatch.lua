-- ARGV: 1 attempt, 2 expected revision, 3 what must be left of the lease in ms, 4 the intent that the claim found.
if redis.call('GET', KEYS[2]) ~= ARGV[1] or redis.call('PTTL', KEYS[2]) < tonumber(ARGV[3]) then
  return 'lost'
end
if revision() ~= ARGV[2] then
  return 'moved'
end
local intent = redis.call('HGET', KEYS[1], 'intent') or ''
if intent == ARGV[1] then
  return 'go'
end
if intent ~= ARGV[4] then
  return 'moved'
end
local _, time = now()
redis.call('HSETNX', KEYS[1], 'intent_us', text(time))
redis.call('HINCRBY', KEYS[1], 'sends', 1)
redis.call('HSET', KEYS[1], 'intent', ARGV[1])
return 'go'
