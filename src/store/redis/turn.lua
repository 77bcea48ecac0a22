-- KEYS: 1 turn (string, PX). ARGV: 1 span in ms.
return redis.call('SET', KEYS[1], '1', 'NX', 'PX', ARGV[1]) and 1 or 0
