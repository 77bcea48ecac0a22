-- KEYS: 1 grant (hash), 2 token (hash). ARGV: 1 the generation of the token that the asker has. It stands without the prelude,
-- which takes longer to set up than this takes.
local row = redis.call('HMGET', KEYS[1], 'rev', 'fail')
if row[1] ~= ARGV[1] or redis.call('HGET', KEYS[2], 'gen') ~= ARGV[1] then
  return 'changed'
end
return row[2] and 'failing' or 'same'
