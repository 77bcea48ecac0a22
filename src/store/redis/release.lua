-- ARGV: 1 owner.
release(ARGV[1])
return 'done'
