-- ARGV: 1 the generation of the token that the asker has. Of a grant whose revision that still is, there is nothing to tell
-- but whether refreshing it fails.
local row = bounded(redis.call('HMGET', KEYS[1], 'rev', 'fail'))
if row[1] == ARGV[1] and redis.call('HGET', KEYS[3], 'gen') == ARGV[1] then
  return row[2] and 'failing' or 'same'
end
return view('changed', 0)
