-- 5,000 users; the percentiles that wrk does not print itself.
local n, path = 0, "/"
function init(args) path = args[1] or "/" end
function request()
  n = n + 1
  return wrk.format("GET", path, { ["Cookie"] = "a=b; uid=user-" .. (n % 5000) })
end
function done(summary, latency)
  local e = summary.errors
  io.write(string.format("RESULT %d %d %f %f %f %d\n", summary.requests, summary.duration, latency:percentile(50),
    latency:percentile(99), latency:percentile(99.9), e.connect + e.read + e.write + e.status + e.timeout))
end
