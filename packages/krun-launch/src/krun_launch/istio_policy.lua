-- The third step: has the answer to what the second one asked. With it, the routes of the port are asked for the host
-- that is meant; for a CONNECT nothing more is to be asked. When nothing is known of the port, what Istio says of
-- hosts outside is asked for by itself.

function envoy_on_request(handle)
  local headers = handle:headers()
  local scope = headers:get("x-krun-scope")
  if not scope then
    return
  end
  local route = handle:streamInfo():routeName()
  if route == "" and scope ~= "outside" then
    headers:replace("x-krun-scope", "outside")
    return handle:clearRouteCache()
  end
  headers:replace("x-krun-policy", route:find("^allow_any") and "allow" or "deny")
  headers:replace(":authority", headers:get("x-krun-authority"))
  headers:remove("x-krun-authority")
  if scope == "outside" then
    headers:replace("x-krun-scope", "direct")
    if headers:get("x-krun-method") then
      headers:replace(":method", headers:get("x-krun-method"))
      headers:remove(":path")
    end
  end
  handle:clearRouteCache()
end
