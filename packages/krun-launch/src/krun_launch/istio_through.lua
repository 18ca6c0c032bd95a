-- The second step: a way out for the host stands, unless it would be plain text where the application wants none, and
-- no step after it does anything. Else the routes of the port are asked what they say of a host outside of the mesh: of
-- one that there is not.

local NOBODY = "nobody.invalid"

function envoy_on_request(handle)
  local headers = handle:headers()
  local is_connect = headers:get(":method") == "CONNECT"
  if handle:streamInfo():routeName() == "through" and (is_connect or headers:get(":scheme") ~= "https") then
    for _, name in ipairs({ "x-krun-scope", "x-krun-clusters", "x-krun-port" }) do
      headers:remove(name)
    end
    return
  end
  headers:replace("x-krun-authority", headers:get(":authority"))
  headers:replace(":authority", NOBODY)
  if is_connect then
    -- No route of Istio's matches a CONNECT: it is asked as a GET.
    headers:replace("x-krun-method", "CONNECT")
    headers:replace("x-krun-cluster", (headers:get("x-krun-clusters") or ""):match("^%S*"))
    headers:replace(":method", "GET")
    headers:replace(":path", "/")
    headers:replace("x-krun-scope", "outside")
  else
    headers:replace("x-krun-scope", headers:get("x-krun-port"))
    headers:remove("x-krun-port")
  end
  handle:clearRouteCache()
end
