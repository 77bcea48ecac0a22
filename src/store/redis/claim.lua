-- ARGV: 1 owner, 2 lease in ms, 3 refused generation, 4 the longest wait that is believed, in µs, and of the purpose, each "1"
-- or "0": 5 needed, 6 yields, 7 dead.
local fresh = token(redis.call('HGET', KEYS[1], 'since'))
if fresh and number(fresh[1]) > tonumber(ARGV[3]) then
  return view('newer', 0)
end

local _, time = now()
local rest = redis.call('HMGET', KEYS[1], 'dead', 'retry_us', 'early_us', 'since', 'give_way_us')
local function waits(until_us, early)
  local left = number(until_us) - time
  return left > 0 and left <= tonumber(ARGV[4]) and not (early and ARGV[5] == '1')
end
if (rest[1] and ARGV[7] ~= '1') or waits(rest[2], rest[2] == rest[3]) then
  return view('resting', 0)
end
local refused = refusal(rest[4])
if refused[1] and waits(refused[3], refused[4]) then
  return view('refused', 0)
end
if ARGV[6] == '1' and waits(rest[5], false) then
  return view('busy', math.ceil((number(rest[5]) - time) / 1000))
end

if not redis.call('SET', KEYS[2], ARGV[1], 'NX', 'PX', ARGV[2]) then
  -- A claim that is repeated after a lost reply finds its own lease.
  if redis.call('GET', KEYS[2]) ~= ARGV[1] then
    return view('busy', redis.call('PTTL', KEYS[2]))
  end
end
return view('held', 0)
