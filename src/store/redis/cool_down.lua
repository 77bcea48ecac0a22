-- KEYS: 1 rest (string, PX). ARGV: 1 cause, 2 span in ms, 3 the longest span that is believed, in ms.
local left = redis.call('PTTL', KEYS[1])
if left < tonumber(ARGV[2]) or left > tonumber(ARGV[3]) then
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
end
return 'done'
