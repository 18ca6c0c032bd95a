-- Which names are mesh names (docs/static-mode.md). krun puts these constants before this text: OWN (our namespace),
-- NAMESPACES (set), ADDRESS (where we listen), PRIVATE (set of Envoy's ports), PROXY (this port),
-- CAPTURED (the kernel brought the connection here: it was for the mesh, at its own port).

local LOCAL = { ["localhost"] = true, ["0.0.0.0"] = true, ["::"] = true, ["::1"] = true, [ADDRESS] = true }

local function ends(text, tail)
  return text:sub(-#tail) == tail
end

-- Each part a DNS label: RFC 1123, section 2.1.
local function is_dns_name(host)
  if #host > 253 or ("." .. host .. "."):find("..", 1, true) then
    return false
  end
  for label in host:gmatch("[^.]+") do
    if #label > 63 or not label:find("^[a-z0-9][a-z0-9-]*$") or ends(label, "-") then
      return false
    end
  end
  return true
end

-- host and port of an authority; nil when the port is none. An IPv6 address keeps no brackets.
local function split(authority)
  local host, port = authority:match("^%[(.*)%]:?(%d*)$")
  if not host then
    host, port = authority:match("^([^:]*):?(%d*)$")
  end
  if not host or host == "" then
    return nil, nil
  end
  local number = port == "" and 80 or tonumber(port)
  if number < 1 or number > 65535 then
    return nil, nil
  end
  return host:lower():gsub("%.$", ""), number
end

-- The whole name in the mesh, or nil for a name outside of it.
local function qualify(host)
  if host == "localhost" or not is_dns_name(host) or host:find("^%d+%.%d+%.%d+%.%d+$") then
    return nil
  end
  if not host:find(".", 1, true) then
    return host .. "." .. OWN .. ".svc.cluster.local"
  end
  local namespace = host:match("^[^.]+%.([^.]+)$")
  if namespace and NAMESPACES[namespace] then
    return host .. ".svc.cluster.local"
  end
  if ends(host, ".svc") then
    return host .. ".cluster.local"
  end
  if ends(host, ".svc.cluster.local") then
    return host
  end
  return nil
end

-- An application that can reach this proxy can dial these ports itself: this stops loops and accidents, not attackers.
local function is_ours(host, port)
  if port == PROXY then
    return true
  end
  return PRIVATE[port] and (LOCAL[host] or host:find("^127%.") ~= nil or ends(host, ".localhost"))
end

local function refuse(handle, status, text)
  handle:respond({ [":status"] = status, ["content-type"] = "text/plain" }, "krun: " .. text .. "\n")
end

function envoy_on_request(handle)
  local headers = handle:headers()
  headers:remove("x-krun-sni")
  local authority = headers:get(":authority") or ""
  local host, port = split(authority)
  if not host then
    return refuse(handle, "400", "not HOST or HOST:PORT: '" .. authority .. "'")
  end
  if CAPTURED then
    port = tonumber(handle:streamInfo():downstreamLocalAddress():match(":(%d+)$"))
  end
  local name = qualify(host)
  if name then
    headers:add("x-krun-sni", "outbound_." .. string.format("%d", port) .. "_._." .. name)
    -- The route was chosen before this filter, without the header that it matches on.
    return handle:clearRouteCache()
  end
  if CAPTURED then
    return refuse(handle, "421", authority .. " is no name of the mesh, and was called at the mesh's address")
  end
  if is_ours(host, port) then
    return refuse(handle, "403", authority .. " is this proxy itself")
  end
  -- What the application wants encrypted must not go out as plain text; inside of the mesh it is encrypted anyway.
  if headers:get(":scheme") == "https" and headers:get(":method") ~= "CONNECT" then
    return refuse(handle, "501", authority .. ": https needs CONNECT")
  end
end
