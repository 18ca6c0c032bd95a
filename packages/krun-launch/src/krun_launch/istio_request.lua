-- The first of four steps of the HTTP proxy: reads where a request wants to go, and refuses what it cannot mean. Each
-- step sees the route that the step before has asked for; this one asks whether the host is one of those that are led
-- out whatever else is known of them. krun puts these constants before this text: OWN (our namespace), PRIVATE (set of
-- ports of Envoy and of the agent), PROXY (this port).

-- host and port of an authority; nil when the port is none. An IPv6 address keeps its brackets.
local function split(authority, default)
  local host, port = authority:match("^(%[.*%]):?(%d*)$")
  if not host then
    host, port = authority:match("^([^:]*):?(%d*)$")
  end
  if not host or host == "" then
    return nil, nil
  end
  local number = port == "" and default or tonumber(port)
  if number < 1 or number > 65535 then
    return nil, nil
  end
  return host:lower():gsub("%.$", ""), number
end

-- The whole names that a host may mean, the mesh's first. Istio names a service's cluster by one of them.
local function names(host)
  if not host:find("^[a-z0-9._-]+$") then
    return {}
  end
  local _, dots = host:gsub("%.", "")
  if dots == 0 then
    return { host .. "." .. OWN .. ".svc.cluster.local", host }
  end
  if dots == 1 then
    return { host .. ".svc.cluster.local", host }
  end
  if dots == 2 and host:sub(-4) == ".svc" then
    return { host .. ".cluster.local", host }
  end
  return { host }
end

-- An application that can reach this proxy can dial these ports itself: this stops loops and accidents, not attackers.
local function is_ours(host, port)
  local is_local = host == "localhost" or host == "0.0.0.0" or host == "[::]" or host == "[::1]"
    or host:find("^127%.") ~= nil or host:sub(-10) == ".localhost"
  return port == PROXY or (is_local and PRIVATE[port])
end

local function refuse(handle, status, text)
  handle:respond({ [":status"] = status, ["content-type"] = "text/plain" }, "krun: " .. text .. "\n")
end

function envoy_on_request(handle)
  local headers = handle:headers()
  local authority = headers:get(":authority") or ""
  local is_connect = headers:get(":method") == "CONNECT"
  local is_secure = headers:get(":scheme") == "https" and not is_connect
  local host, port = split(authority, is_secure and 443 or 80)
  if not host then
    return refuse(handle, "400", "not HOST or HOST:PORT: '" .. authority .. "'")
  end
  if is_ours(host, port) then
    return refuse(handle, "403", authority .. " is this proxy, or a port of Envoy's or of the agent's")
  end
  local clusters = {}
  local found = names(host)
  -- What the application wants encrypted must not go out as plain text; inside of the mesh it is encrypted anyway.
  if is_secure and not (found[1] or ""):find("%.svc%.cluster%.local$") then
    return refuse(handle, "501", authority .. ": https needs CONNECT")
  end
  for _, name in ipairs(found) do
    table.insert(clusters, string.format("outbound|%d||%s", port, name))
  end
  headers:replace("x-krun-clusters", table.concat(clusters, " "))
  headers:replace("x-krun-port", string.format("%d", port))
  headers:replace("x-krun-scope", string.format("through-%d", port))
  handle:clearRouteCache()
end
