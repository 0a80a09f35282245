-- Every key of the database with its type, its time to live and its content, in an order of its own: sets and hashes have none, and a server gives
-- them another one after each start.
local function hex(text)
  return (string.gsub(text, '.', function(c) return string.format('%02x', string.byte(c)) end))
end
local function sorted(list)
  table.sort(list)
  return list
end
local function flat(list, to)
  for _, item in ipairs(list) do
    if type(item) == 'table' then flat(item, to) else to[#to + 1] = hex(item) end
  end
  return to
end
local read = {
  string = function(key) return { redis.call('GET', key) } end,
  list = function(key) return redis.call('LRANGE', key, 0, -1) end,
  set = function(key) return sorted(redis.call('SMEMBERS', key)) end,
  zset = function(key) return redis.call('ZRANGE', key, 0, -1, 'WITHSCORES') end,
  stream = function(key) return redis.call('XRANGE', key, '-', '+') end,
  hash = function(key)
    local all = {}
    for _, field in ipairs(sorted(redis.call('HKEYS', key))) do
      all[#all + 1] = field
      all[#all + 1] = redis.call('HGET', key, field)
    end
    return all
  end,
}
local lines = {}
for _, key in ipairs(sorted(redis.call('KEYS', '*'))) do
  local kind = redis.call('TYPE', key).ok
  lines[#lines + 1] = kind .. ' ' .. hex(key) .. ' ' .. redis.call('PEXPIRETIME', key) .. ' ' .. table.concat(flat(read[kind](key), {}), ' ')
end
return table.concat(lines, '\n')
