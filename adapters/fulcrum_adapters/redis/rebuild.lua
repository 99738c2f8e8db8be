-- Whose books these are, and taking over new ones: written beside the old under a name of their own (a generation),
-- believed from the last step on.
--
-- KEYS[1] the epoch; ARGV[1] the prefix of all keys; ARGV[2] the request (msgpack): {"state"[, a new name, its life]},
-- {"stage", name, generation, commands, life} or {"flip", name, generation, chunks, begins, life, emptied}, after the
-- installation that asks; ARGV[3] its sum.
local call = redis.call
-- Both ways carry a sum: what was damaged on its way is refused here, and seen there.
if redis.sha1hex(KEYS[1] .. ARGV[1] .. ARGV[2]) ~= ARGV[3] then return redis.error_reply('DAMAGED the request') end
local function answer(said)
  local packed = cmsgpack.pack(said)
  return redis.sha1hex(ARGV[3] .. packed) .. packed
end

local owner, request = unpack(cmsgpack.unpack(ARGV[2]))
local run = string.match(call('INFO', 'server'), 'run_id:(%w+)')
local evicted = string.match(call('INFO', 'stats'), 'evicted_keys:(%d+)')
local epoch = call('HMGET', KEYS[1], 'run', 'installation', 'loss', 'evicted')
if epoch[2] and epoch[2] ~= owner then return answer({run, 2}) end
local believed = epoch[1] == run and epoch[2] and epoch[3] and epoch[4] == evicted and 1 or 0
-- One run may lose its books more than once. Each loss has a name, which the first who asks gives to it.
local loss = believed == 1 and epoch[3] or call('GET', ARGV[1] .. 'lost')
if not loss and request[1] == 'state' and request[2] then
  loss = request[2]
  call('SET', ARGV[1] .. 'lost', loss, 'PX', request[3])
end
local name = run .. '.' .. (loss or '')
if request[1] == 'state' then return answer({name, believed}) end
if request[2] ~= name or believed == 1 then return answer({name, 0}) end

local base = ARGV[1] .. request[3] .. ':'
if request[1] == 'stage' then
  for _, command in ipairs(request[4]) do
    command[2] = base .. command[2]
    if type(command[3]) == 'table' then command[3] = cmsgpack.pack(command[3]) end
    call(unpack(command))
  end
  -- The count of what the server had evicted when this was begun: what it evicts meanwhile may be of this, too.
  call('HSETNX', base .. 'staged', 'evicted', evicted)
  call('HINCRBY', base .. 'staged', 'chunks', 1)
  call('PEXPIRE', base .. 'staged', request[5])
  return answer({name, 1})
end

-- Chunks that were lost on the way (somebody emptied the server) must not be missing in silence.
local staged = call('HMGET', base .. 'staged', 'chunks', 'evicted')
if staged[1] ~= string.format('%.0f', request[4]) or staged[2] ~= evicted then return answer({name, 0}) end
local clock, begins = call('TIME'), request[5]
call('DEL', KEYS[1], base .. 'staged', ARGV[1] .. 'lost')
call('HSET', KEYS[1], 'installation', owner, 'run', run, 'loss', loss, 'generation', request[3], 'horizon', begins,
  'now', begins, 'emptied', request[7], 'evicted', evicted,
  'moved', string.format('%.0f', tonumber(clock[1]) * 1000000 + tonumber(clock[2])))
call('PEXPIRE', KEYS[1], request[6])
return answer({name, 1})
