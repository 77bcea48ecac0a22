-- ARGV: 1 owner, 2 lease in ms, 3 refused generation, 4 the longest wait that is believed, in µs.
local fresh = token(redis.call('HGET', KEYS[1], 'since'))
if fresh and number(fresh[1]) > tonumber(ARGV[3]) then
  return view('newer', 0)
end

local _, time = now()
local rest = redis.call('HMGET', KEYS[1], 'dead', 'retry_us')
local wait = number(rest[2]) - time
if rest[1] or (wait > 0 and wait <= tonumber(ARGV[4])) then
  return view('resting', 0)
end

if not redis.call('SET', KEYS[2], ARGV[1], 'NX', 'PX', ARGV[2]) then
  -- A claim that is repeated after a lost reply finds its own lease.
  if redis.call('GET', KEYS[2]) ~= ARGV[1] then
    return view('busy', redis.call('PTTL', KEYS[2]))
  end
end
return view('held', 0)
