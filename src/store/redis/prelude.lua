-- Shared by every script but look.lua. KEYS: 1 grant (hash, no TTL), 2 lease (string, PX), 3 token (hash, TTL from expires_in),
-- 4 refusal of the token (hash, TTL from its wait). All of them carry one hash tag, so that a script is one slot of a cluster. Numbers pass as text: Lua's own formatting of
-- large ones is not exact.

-- As in src/store/record.rs.
local MAX_PAST = 8

local function now()
  local time = redis.call('TIME')
  return time, tonumber(time[1]) * 1000000 + tonumber(time[2])
end

local function text(number)
  return string.format('%.0f', number)
end

-- More than all fields of a key together ever have in bytes: what a provider answers is read up to 1 MiB, and a grant can
-- hold two answers. Whatever is larger is not ours, and must not fill the memory of whoever asked.
local LARGEST = 8 * 1024 * 1024

local function bounded(values)
  local size = 0
  for index = 1, #values do
    size = size + #(values[index] or '')
  end
  if size > LARGEST then
    error({ err = 'UNREADABLE a value is larger than any of ours' })
  end
  return values
end

-- A field as a number, zero if it is absent. Lua would take "nan" and "1e3" for one too; what the caller could not read
-- is refused here, before anything is written.
local function number(field)
  local digits = field or '0'
  if not string.match(digits, '^%d+$') then
    error({ err = 'UNREADABLE a number is damaged' })
  end
  return tonumber(digits)
end

local function revision()
  return redis.call('HGET', KEYS[1], 'rev') or '0'
end

-- The token, unless it was made from a grant that was replaced since.
local function token(since)
  local row = bounded(redis.call('HMGET', KEYS[3], 'gen', 'sealed'))
  if not row[1] or number(row[1]) < number(since) then
    return nil
  end
  return { row[1], row[2], redis.call('PTTL', KEYS[3]) }
end

-- What a field is among all of a key, names and values by turns: it is read already, and another command would take longer.
local function among(fields, name)
  for index = 1, #fields, 2 do
    if fields[index] == name then
      return fields[index + 1]
    end
  end
end

-- The last refusal of the token: cause, count, when the next try is due, and whether it came ahead of time. One that was noted
-- of a grant that was replaced since is none.
local function refusal(since)
  local row = redis.call('HMGET', KEYS[4], 'cause', 'count', 'retry_us', 'early', 'since')
  if not row[1] or row[5] ~= (since or '0') then
    return {}
  end
  number(row[3])
  return { row[1], number(row[2]), row[3], row[4] == '1' }
end

local function view(status, left)
  local fields = bounded(redis.call('HGETALL', KEYS[1]))
  local since = among(fields, 'since')
  local refused = refusal(since)
  if refused[1] then
    refused[4] = refused[4] and 1 or 0
  end
  return { status, left, fields, token(since) or {}, redis.call('TIME'), refused }
end

-- Writes what is there already. A script that is repeated and finds its own effect does so, because whoever waits until a
-- write has reached the replicas waits only for what this connection wrote.
local function again(field, value)
  redis.call('HSET', KEYS[1], field, value)
end

-- The attempts that wrote this revision and those before it, newest first, for the next one.
local function past()
  local row = redis.call('HMGET', KEYS[1], 'attempt', 'past')
  local attempts = { row[1] or nil }
  for attempt in string.gmatch(row[2] or '', '%S+') do
    if #attempts < MAX_PAST then
      attempts[#attempts + 1] = attempt
    end
  end
  return table.concat(attempts, ' ')
end

-- Tells every replica of a change. A floor is a generation, and so earlier than the store's time. Where it is not, the code
-- that proves the event is left out: replicas then look, and take no floor that would keep later tokens out of their memory.
local function publish(channel, event, code, floor, time)
  redis.call('PUBLISH', channel, tonumber(floor) < time and event .. ' ' .. code or event)
end

local function release(owner)
  if redis.call('GET', KEYS[2]) == owner then
    redis.call('DEL', KEYS[2])
  end
end

-- A definitive outcome withdraws this attempt's intent; an older one, of a try that went unanswered, stays.
local function withdraw(attempt)
  local row = redis.call('HMGET', KEYS[1], 'intent', 'sends')
  local sends = number(row[2])
  if row[1] ~= attempt then
    return
  end
  if sends <= 1 then
    redis.call('HDEL', KEYS[1], 'intent', 'intent_us', 'sends')
  else
    redis.call('HSET', KEYS[1], 'sends', text(sends - 1))
  end
end

-- Whatever was noted of the revision before.
local function forget()
  redis.call('HDEL', KEYS[1], 'dead', 'intent', 'intent_us', 'sent_us', 'sends', 'fail', 'failures', 'retry_us', 'early_us',
    'settled', 'revive_us', 'deaths', 'q_rev', 'q_sealed', 'report_rev', 'report')
end
