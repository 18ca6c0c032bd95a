-- Leads a request by the cluster of its name and port, or out of the mesh when the mesh's policy allows that
-- (istio_scopes.py). "nowhere" is no cluster: the proxy then says why. krun puts TUNNEL before this text: where a
-- CONNECT to a service of the mesh is looked into (istio_whitebox_tunnel.py), or "".

function envoy_on_route(handle)
  local headers = handle:headers()
  local mesh = headers:get("x-krun-cluster")
  -- A request for https as plain text: a host of a ServiceEntry is outside, too.
  local needs_mesh = headers:get("x-krun-policy") == "encrypted"
  for name in (headers:get("x-krun-clusters") or ""):gmatch("%S+") do
    if handle:getCluster(name) and not (needs_mesh and not name:find("%.svc%.cluster%.local$")) then
      return name == mesh and TUNNEL ~= "" and TUNNEL or name
    end
  end
  if headers:get("x-krun-policy") == "allow" then
    return "PassthroughCluster"
  end
  return "nowhere"
end
