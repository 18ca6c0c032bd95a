-- The fourth step: the route of a service of the mesh stands, as istiod has made it. What its routes take for a host
-- outside is led by its cluster, when there is one, or out of the mesh, when the mesh allows it (istio_cluster.lua).

local OUTSIDE = { allow_any = true, allow_any_dynamic_dns = true, block_all = true }

local function direct(handle, headers)
  if headers:get(":scheme") == "https" and headers:get(":method") ~= "CONNECT" then
    headers:replace("x-krun-policy", "encrypted")
  end
  headers:replace("x-krun-scope", "direct")
  handle:clearRouteCache()
end

function envoy_on_request(handle)
  local headers = handle:headers()
  local scope = headers:get("x-krun-scope")
  if not scope then
    return
  end
  local route = handle:streamInfo():routeName()
  if scope == "outside" then
    headers:replace("x-krun-policy", route:find("^allow_any") and "allow" or "deny")
    headers:replace(":authority", headers:get("x-krun-authority"))
    return direct(handle, headers)
  end
  if scope == "direct" or OUTSIDE[route] then
    return direct(handle, headers)
  end
  for _, name in ipairs({ "x-krun-scope", "x-krun-clusters", "x-krun-policy" }) do
    headers:remove(name)
  end
end
