-- A million users at random; one request in fifty buys.
local path = "/"
function init(args) math.randomseed(tonumber(args[1])) end
function request()
  local cookie = { ["Cookie"] = "uid=user-" .. math.random(1000000) }
  if math.random(50) == 1 then return wrk.format("POST", "/buy", cookie) end
  return wrk.format("GET", path, cookie)
end
function done(summary, latency)
  local e = summary.errors
  io.write(string.format("RESULT %d %d %f %f %f %d\n", summary.requests, summary.duration, latency:percentile(50),
    latency:percentile(99), latency:percentile(99.9), e.connect + e.read + e.write + e.status + e.timeout))
end
