-- The ledger and the history as one function: a whole batch, or nothing.
--
-- KEYS[1] the epoch (a hash: whose books these are); ARGV[1] the prefix of all keys; ARGV[2] the request (msgpack);
-- ARGV[3] its sum.
-- The rules are those of fulcrum_mcp/core/admission.py. Times are microseconds, amounts at most 2^52: both exact in
-- Lua's doubles. Nothing is written before everything that a write needs has been read, and what shows that somebody
-- else uses our keys (WRONGTYPE) is met while reading.
local call, pack, fmod = redis.call, cmsgpack.pack, math.fmod
-- Both ways carry a sum: what was damaged on its way is refused here, and seen there.
if redis.sha1hex(KEYS[1] .. ARGV[1] .. ARGV[2]) ~= ARGV[3] then return redis.error_reply('DAMAGED the request') end
local function answer(said)
  local packed = cmsgpack.pack(said)
  return redis.sha1hex(ARGV[3] .. packed) .. packed
end

local owner, bound, keep, here, skew, at, writes, places, rates, operations = unpack(cmsgpack.unpack(ARGV[2]))

local MAX, FOREVER = 4503599627370496, 9007199254740992
local LASTING, DUE = 7776000000, 2592000000 -- ms: life of what has no end, unless it is prolonged; when that is due
local AT_ONCE, SLICES = 500, 240
local OPEN, COMMITTED, RELEASED, EXPIRED = 0, 1, 2, 3

local function text(number) return string.format('%.0f', number) end

-- Books of another installation are none of ours. Those of another run of the server are not believed, nor such as
-- have lapsed, nor such of which the server may have evicted something, nor by whoever was told of those before them.
local run = string.match(call('INFO', 'server'), 'run_id:(%w+)')
local evicted = string.match(call('INFO', 'stats'), 'evicted_keys:(%d+)')
local epoch =
  call('HMGET', KEYS[1], 'run', 'generation', 'horizon', 'now', 'moved', 'emptied', 'installation', 'loss', 'evicted')
if epoch[7] and epoch[7] ~= owner then return answer({2, run}) end
if epoch[1] ~= run or not epoch[2] or not epoch[7] or not epoch[8] then return answer({0, run}) end
if epoch[9] ~= evicted then return answer({0, run}) end
if bound ~= '' and bound ~= run .. '.' .. epoch[8] then return answer({0, run}) end
local base = ARGV[1] .. epoch[2] .. ':'
local horizon, emptied = tonumber(epoch[3]), tonumber(epoch[6])
local opens, lasting = base .. 'open', base .. 'lasting'
local clock = call('TIME')
local server = tonumber(clock[1]) * 1000000 + tonumber(clock[2])

-- Windows and rates are told by the callers' clocks, which must agree; one that is far off moves them for everybody.
if writes == 1 and skew > 0 and math.abs(here - server) > skew then return answer({3, run, here - server}) end

if writes == 1 then
  -- What ended long ago may have been forgotten, and is refused. The time that callers tell counts, but it may not run
  -- faster than an hour in 30 seconds of the server's.
  local now = tonumber(epoch[4])
  now = math.max(now, math.min(at, now + math.max(server - tonumber(epoch[5]), 0) * 120))
  horizon = math.max(horizon, now - keep * 500)
  call('ZCARD', opens)
  call('HSET', KEYS[1], 'horizon', text(horizon), 'now', text(now), 'moved', text(server))
  call('PEXPIRE', KEYS[1], text(keep / 2))
end

local accounts, arrivals, holds = {}, {}, {} -- what has been read, by key; false = there is none

local function account(key)
  local found = accounts[key]
  if found == nil then
    local raw = call('GET', base .. key)
    found = false
    if raw then
      local v = cmsgpack.unpack(raw)
      found = {key = key, ends = v[1], limit = v[2], committed = v[3], reserved = v[4], notified = v[5],
        warned = v[6], marks = v[7]}
    end
    accounts[key] = found
  end
  return found
end

local function arrival(key)
  local found = arrivals[key]
  if found == nil then
    local raw = call('GET', base .. key)
    -- What was forgotten, or has never been used, is no fuller than it was when these books began.
    local v = raw and cmsgpack.unpack(raw) or {false, 0}
    found = {key = key, at = v[1], warned = v[2]}
    arrivals[key] = found
  end
  return found
end

local function hold(id)
  local found = holds[id]
  if found == nil then
    local raw = call('GET', base .. 'h' .. id)
    found = false
    if raw then
      local v = cmsgpack.unpack(raw)
      found = {id = id, state = v[1], tenant = v[2], writer = v[3], lines = v[4], was = v[1]}
    end
    holds[id] = found
  end
  return found
end

local function prolong(key, ms)
  if call('PTTL', key) < ms then call('PEXPIRE', key, text(ms)) end
end

local function flush()
  local writers, forgotten = {}, server / 1000
  for id, h in pairs(holds) do
    if h and h.dirty then
      if h.state == OPEN then
        call('ZADD', opens, text(h.expires), id)
        call('SADD', base .. 'w' .. h.writer, id)
        writers[h.writer] = math.max(writers[h.writer] or 0, h.life)
      elseif h.was == OPEN then
        call('ZREM', opens, id)
        call('SREM', base .. 'w' .. h.writer, id)
      end
    end
  end
  for writer, life in pairs(writers) do prolong(base .. 'w' .. writer, life) end
  for id, h in pairs(holds) do
    if h and h.dirty then
      local v = {h.state, h.tenant, h.writer, h.lines}
      if h.state == COMMITTED or h.state == RELEASED then v = {h.state, '', '', {}} end
      call('SET', base .. 'h' .. id, pack(v), 'PX', text(h.state == OPEN and h.life or keep))
    end
  end
  for key, a in pairs(accounts) do
    if a and a.dirty then
      local raw = pack({a.ends, a.limit, a.committed, a.reserved, a.notified, a.warned, a.marks})
      if not a.fresh then
        call('SET', base .. key, raw, 'KEEPTTL')
      else
        local index, life = base .. a.index, a.life
        call('SET', base .. key, raw, 'PX', text(life))
        call('ZREMRANGEBYSCORE', index, '-inf', text(forgotten))
        call('ZADD', index, 'GT', text(a.ends == 0 and FOREVER or forgotten + life), a.bucket)
        prolong(index, life)
        if a.ends == 0 then
          call('ZADD', lasting, text(forgotten + DUE), key)
          call('ZADD', lasting, text(forgotten + DUE), a.index)
          call('PEXPIRE', lasting, text(LASTING))
        end
      end
    end
  end
  for key, a in pairs(arrivals) do
    if a.dirty then
      call('SET', base .. key, pack({a.at, a.warned}), 'PX', text(math.max(a.at - at, 0) / 1000 + keep))
    end
  end
  if next(holds) then call('PEXPIRE', opens, text(2 * keep)) end
  accounts, arrivals, holds = {}, {}, {}
end

local function seconds(us)
  local rest = fmod(us, 1000000)
  return math.max((us - rest) / 1000000 + (rest > 0 and 1 or 0), 1)
end

local function step(rate, a, calls, now)
  local _, interval, burst = unpack(rate, 1, 3)
  local tolerance = interval * burst
  local from = math.min(math.max(a.at or math.max(horizon, emptied + tolerance), now), now + tolerance)
  local spare = now + tolerance - from
  local left = (spare - fmod(spare, interval)) / interval
  if calls <= left then return true, from + calls * interval, left, now end
  return false, now + tolerance, left, calls <= burst and from + calls * interval - tolerance or 0
end

-- Refused: {2, match, place in the match (0 = its rate), action, left, resets at, retry after}.
local function heavier(one, other)
  if not one or not other then return one or other end
  local x, y = one[7] > 0 and one[7] or FOREVER, other[7] > 0 and other[7] or FOREVER
  if other[4] > one[4] or (other[4] == one[4] and y > x) then return other end
  return one
end

local function event(kind, tenant, a, ...)
  return {kind, tenant, a.key, a.committed, a.reserved, a.limit, a.ends, ...}
end

local function crossed(events, tenant, a)
  local used = a.committed + a.reserved
  if used == 0 then return end
  for i = 1, #a.marks, 2 do
    if a.marks[i] > a.notified and used >= a.marks[i + 1] then
      a.notified = a.marks[i]
      events[#events + 1] = event(2, tenant, a, a.marks[i])
    end
  end
end

local function claim(number, match, claims, now)
  local mine, binds, lines = false, match[1] == 1, match[3]
  for i = 1, #lines, 2 do
    local key, index, bucket, ends, limit, action, marks = unpack(places[lines[i]], 1, 7)
    local wanted, a = lines[i + 1], account(key)
    local life = ends == 0 and LASTING or math.max(ends - now, 0) / 1000 + keep
    if not a then
      if binds and 0 < ends and ends <= horizon then
        return {2, number, (i + 1) / 2, 2, 0, horizon, seconds(horizon - now)}
      end
      a = {key = key, ends = ends, limit = limit, committed = 0, reserved = 0, notified = 0, warned = 0,
        marks = marks, fresh = true, index = index, bucket = bucket, life = life}
    elseif a.ends ~= ends then
      -- The budget's period was changed, and its new window begins when the old one did. Another gateway may still have
      -- the longer one: what was to live longer does.
      a.ends, a.fresh, a.index, a.bucket = ends, true, index, bucket
      a.life = math.max(life, call('PTTL', base .. key))
    end
    local used = a.committed + a.reserved
    local absurd = wanted < 0 or used + wanted > MAX
    local excess = wanted > 0 and used + wanted > limit
    if absurd or (excess and binds) then
      local wait = ends > 0 and wanted >= 0 and wanted <= limit and match[2] or 0
      local refusal = {2, number, (i + 1) / 2, absurd and 2 or action, math.max(limit - used, 0), ends, wait}
      mine = heavier(mine, refusal)
    end
    claims[#claims + 1] = {a, limit, action, marks, wanted, excess, (i + 1) / 2}
  end
  return mine
end

local function admit(op)
  local _, id, tenant, writer, now, expires, matches = unpack(op, 1, 7)
  local known = hold(id)
  if known then return {3, known.state == OPEN and 0 or 1} end
  local claims, slots, refused = {}, {}, false
  for number, match in ipairs(matches) do
    if #match[3] > 0 then refused = heavier(refused, claim(number, match, claims, now)) end
    if match[4] > 0 then
      local rate, calls = rates[match[4]], match[5]
      local a = arrival(rate[1])
      local conforms, after, left, when = step(rate, a, calls, now)
      if calls < 0 or (not conforms and match[1] == 1) then
        local wait = when > 0 and seconds(when - now) or 0
        refused = heavier(refused, {2, number, 0, calls < 0 and 2 or rate[4], left, when, wait})
      else
        slots[#slots + 1] = {a, rate[4], after, left, conforms, calls, match[4]}
      end
    end
  end
  if refused then return refused end
  local events, lefts, paces, lines = {}, {}, {}, {}
  for _, c in ipairs(claims) do
    local a, limit, action, marks, wanted, excess = unpack(c, 1, 6)
    accounts[a.key] = a
    a.limit, a.marks, a.dirty = limit, marks, true
    a.reserved = a.reserved + wanted
    local used, n = a.committed + a.reserved, #lines
    lines[n + 1], lines[n + 2] = a.key, wanted
    if excess and action == 0 and a.warned == 0 then
      a.warned = 1
      events[#events + 1] = event(1, tenant, a)
    end
    crossed(events, tenant, a)
    lefts[#lefts + 1] = math.max(limit - used, 0)
  end
  for _, s in ipairs(slots) do
    local a, action, after, left, conforms, calls, rate = unpack(s, 1, 7)
    if not conforms and action == 0 and a.warned == 0 then events[#events + 1] = {4, tenant, rate} end
    a.at, a.warned, a.dirty = after, conforms and 0 or 1, true
    paces[#paces + 1], paces[#paces + 2] = math.max(left - calls, 0), after
  end
  holds[id] = {id = id, state = OPEN, tenant = tenant, writer = writer, lines = lines, dirty = true,
    expires = expires, life = math.max(expires - now, 0) / 1000 + keep}
  return {1, lefts, paces, events}
end

-- Which amount a line is about stands at the end of its account's key.
local function settle(id, release, actual, expired)
  local h = hold(id)
  if not h then
    -- A reservation that was sent before its release may arrive after it: it must find this.
    if release then holds[id] = {id = id, state = RELEASED, tenant = '', writer = '', lines = {}, dirty = true} end
    return {4, 0, {}}
  end
  local late = h.state == EXPIRED
  if h.state == COMMITTED or h.state == RELEASED or (late and not actual) then return {4, 0, {}} end
  local events = {}
  for i = 1, #h.lines, 2 do
    local a, held = account(h.lines[i]), h.lines[i + 1]
    if a then
      a.dirty = true
      if late then a.committed = math.max(a.committed - held, 0) else a.reserved = math.max(a.reserved - held, 0) end
      if not release then
        local cost = actual and actual[a.key:match(':([%a_]+)%d+:%d+$')] or held
        a.committed = math.min(a.committed + cost, MAX)
        if cost > held then
          events[#events + 1] = event(3, h.tenant, a, id, held, cost)
          crossed(events, h.tenant, a)
        end
      end
    end
  end
  h.state = release and RELEASED or (expired and EXPIRED or COMMITTED)
  h.dirty = true
  return {4, 1, events}
end

local function renew(writer, now, expires)
  flush()
  local count, life = 0, math.max(expires - now, 0) / 1000 + keep
  local mine = base .. 'w' .. writer
  for _, id in ipairs(call('SMEMBERS', mine)) do
    if call('ZSCORE', opens, id) then
      count = count + 1
      if call('ZADD', opens, 'GT', 'CH', text(expires), id) == 1 then prolong(base .. 'h' .. id, life) end
    end
  end
  if count > 0 then prolong(mine, life) end
  return {4, count, {}}
end

local function expire(now)
  flush()
  local count, events = 0, {}
  local late = call('ZRANGEBYSCORE', opens, '-inf', text(now), 'LIMIT', 0, AT_ONCE)
  for _, id in ipairs(late) do
    local h = hold(id)
    if h and h.state == OPEN then
      local settled = settle(id, false, false, true)
      count = count + 1
      for _, each in ipairs(settled[3]) do events[#events + 1] = each end
    else
      call('ZREM', opens, id)
    end
  end
  flush()
  for _, key in ipairs(call('ZRANGEBYSCORE', lasting, '-inf', text(server / 1000), 'LIMIT', 0, 64)) do
    if call('PEXPIRE', base .. key, text(LASTING)) == 1 then
      call('ZADD', lasting, text(server / 1000 + DUE), key)
    else
      call('ZREM', lasting, key)
    end
  end
  call('PEXPIRE', lasting, text(LASTING))
  call('PEXPIRE', opens, text(2 * keep))
  return {4, count, events, #late == AT_ONCE and 1 or 0}
end

local function count(subject, tool, now, slice, life)
  if slice < 0 then
    call('HINCRBY', base .. 'c' .. subject, tool, 1)
    call('PEXPIRE', base .. 'c' .. subject, text(life))
  else
    local slices, part = base .. 's' .. subject, text(slice)
    call('HINCRBY', base .. 'k' .. part .. ':' .. subject, tool, 1)
    call('PEXPIRE', base .. 'k' .. part .. ':' .. subject, text(life))
    call('ZADD', slices, 'GT', text(now), part)
    call('ZREMRANGEBYRANK', slices, 0, -SLICES - 1)
    call('PEXPIRE', slices, text(life))
  end
  return {5}
end

local function taint(subject, labels, now, life)
  for _, label in ipairs(labels) do call('ZADD', base .. 't' .. subject, 'GT', text(now), label) end
  call('PEXPIRE', base .. 't' .. subject, text(life))
  return {5}
end

local function past(subject, since)
  local above, calls = since < 0 and '-inf' or '(' .. text(since), {}
  local function add(key)
    local found = call('HGETALL', key)
    for i = 1, #found, 2 do calls[found[i]] = (calls[found[i]] or 0) + tonumber(found[i + 1]) end
  end
  if since < 0 then add(base .. 'c' .. subject) end
  for _, part in ipairs(call('ZRANGEBYSCORE', base .. 's' .. subject, above, '+inf')) do
    add(base .. 'k' .. part .. ':' .. subject)
  end
  local counted = {}
  for tool, number in pairs(calls) do
    local n = #counted
    counted[n + 1], counted[n + 2] = tool, number
  end
  return {6, call('ZRANGEBYSCORE', base .. 't' .. subject, above, '+inf'), counted}
end

local function usage(index, first, size, head, tails)
  local found = {}
  local buckets = call('ZRANGE', base .. index, first, first + size - 1)
  for _, bucket in ipairs(buckets) do
    local row = {bucket}
    for _, tail in ipairs(tails) do
      local a = account(head .. #bucket .. ':' .. bucket .. tail)
      local n = #row
      row[n + 1], row[n + 2] = a and a.committed or 0, a and a.reserved or 0
    end
    found[#found + 1] = row
  end
  return {7, found, #buckets == size and 1 or 0}
end

local function peek(now, wanted, slots)
  local lefts, paces = {}, {}
  for i, number in ipairs(wanted) do
    local a, limit = account(places[number][1]), places[number][5]
    lefts[i] = a and math.max(limit - a.committed - a.reserved, 0) or limit
  end
  for _, number in ipairs(slots) do
    local _, after, left = step(rates[number], arrival(rates[number][1]), 0, now)
    local n = #paces
    paces[n + 1], paces[n + 2] = left, after
  end
  return {8, lefts, paces}
end

local function opened(writer)
  local found = {}
  for _, id in ipairs(call('SMEMBERS', base .. 'w' .. writer)) do
    if call('ZSCORE', opens, id) then found[#found + 1] = id end
  end
  return {9, found}
end

local kinds = {
  admit,
  function(op) return settle(op[2], false, op[3], false) end,
  function(op) return settle(op[2], true, false, false) end,
  function(op) return renew(op[2], op[3], op[4]) end,
  function(op) return expire(op[2]) end,
  function(op) return count(unpack(op, 2, 6)) end,
  function(op) return taint(unpack(op, 2, 5)) end,
  function(op) return past(op[2], op[3]) end,
  function(op) return usage(unpack(op, 2, 6)) end,
  function(op) return peek(op[2], op[3], op[4]) end,
  function(op) return opened(op[2]) end,
}

local outcomes = {}
for i, op in ipairs(operations) do outcomes[i] = kinds[op[1]](op) end
if writes == 1 then flush() end
return answer({1, run, outcomes})
