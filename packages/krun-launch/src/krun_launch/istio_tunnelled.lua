-- The first step for a request within a CONNECT: where it goes was said there (krun puts it into these headers), and
-- its own host chooses among the routes of that port, as if the kernel had brought the connection here.

local NOBODY = "nobody.invalid"

function envoy_on_request(handle)
  local headers = handle:headers()
  headers:replace("x-krun-scope", headers:get("x-krun-port"))
  headers:remove("x-krun-port")
  headers:replace("x-krun-authority", headers:get(":authority") or "")
  headers:replace(":authority", NOBODY)
  handle:clearRouteCache()
end
