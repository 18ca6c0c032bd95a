"""Envoy's scopes: which of istiod's route configurations a request through our HTTP proxy is led by.

istiod has one route configuration for each port of the mesh, called by the port's number; a scope leads there. The
ports are known only by the clusters that istiod has sent: the file is written again when these change.

Two scopes are always there. Istio answers a number that no service has with its policy for hosts outside of the mesh
alone (allow_any, block_all): OUTSIDE. And DIRECT leads to the cluster of a name and port, or out of the mesh: what is
behind a CONNECT, names outside, ports that have no scope yet, and HTTP to ports that are TCP to the mesh.

Hosts that the mesh knows and leaves to the application's own look at DNS (ServiceEntries with resolution NONE) have
clusters that need the address a captured connection was for. There is none here: a scope THROUGH-PORT leads them out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from krun_launch.contract import PORTS
from krun_launch.envoy_tls import TYPE, Json, typed

# Read by the Lua scripts, and gone before a request leaves.
SCOPE = "x-krun-scope"
CLUSTERS = "x-krun-clusters"
POLICY = "x-krun-policy"
METHOD = "x-krun-method"
AUTHORITY = "x-krun-authority"
CLUSTER = "x-krun-cluster"  # of a CONNECT alone, as the port is
PORT = "x-krun-port"
HEADERS = (SCOPE, CLUSTERS, POLICY, METHOD, AUTHORITY, CLUSTER, PORT)
# The cluster that leads a CONNECT to where it is looked into.
TUNNEL = "krun_tunnel"

OUTSIDE = "outside"
DIRECT = "direct"
THROUGH = "through"
# The proxy refuses to lead to itself, so no request can mean a service of this port.
NO_SERVICE = PORTS["ENVOY_HTTP_PROXY"]

# Of Envoy's admin interface: a text that changes with the clusters, and one with all their names.
CHANGE = "/stats?filter=%5Ecluster_manager%5C.(cluster_added|cluster_removed|cluster_modified)$"
NAMES = "/config_dump?resource=dynamic_active_clusters&mask=cluster.name,cluster.type"
CLUSTER_NAME = re.compile(r"outbound\|(\d{1,5})\|[^|]*\|")
# With its host, as JSON has it, and its kind, which follows.
WHOLE = re.compile(r'"outbound\|(\d{1,5})\|[^|"]*\|([^"]+)"(?:,\s*"type":\s*"(\w+)")?')
IN_CLUSTER = ".svc.cluster.local"

ROUTES = "envoy.config.route.v3.ScopedRouteConfiguration"
LUA = "envoy.extensions.router.cluster_specifiers.lua.v3.LuaConfig"


def ports_of(text: str) -> frozenset[int]:
    """The ports of the mesh, out of a text that holds istiod's names of clusters (``outbound|8080||web.demo…``)."""
    found = {int(number) for number in CLUSTER_NAME.findall(text)}
    return frozenset(port for port in found if 0 < port < 65536)


def scopes_of(text: str) -> str:
    """The file, out of what Envoy says at NAMES."""
    hosts: dict[int, dict[str, bool]] = {}
    for number, host, kind in WHOLE.findall(text):
        # A service without an address of its own has such a cluster, too: its name is nobody's outside.
        passes = kind == "ORIGINAL_DST" and not host.endswith(IN_CLUSTER)
        hosts.setdefault(int(number), {})[host] = passes
    through = [_through(port, hosts[port]) for port in sorted(hosts) if any(hosts[port].values())]
    return render(ports_of(text), further=through)


def render(ports: Iterable[int], *, further: Iterable[Json] = ()) -> str:
    """The file, for these ports."""
    by_port = [_scope(str(port), route_configuration_name=str(port)) for port in sorted(ports)]
    outside = _scope(OUTSIDE, route_configuration_name=str(NO_SERVICE))
    direct = _scope(DIRECT, route_configuration=_direct())
    return json.dumps({"resources": [outside, direct, *further, *by_port]}) + "\n"


def _scope(key: str, **routes: object) -> Json:
    return {"@type": TYPE + ROUTES, "name": key, "key": {"fragments": [{"string_key": key}]}, **routes}


def _through(port: int, hosts: Mapping[str, bool]) -> Json:
    """The hosts of a port that are led out; those that a pattern among them would take and that are not, are none."""
    patterns = [host[1:] for host, passes in hosts.items() if passes and host.startswith("*.")]
    kept = [host for host, passes in hosts.items() if not passes and host.endswith(tuple(patterns))]
    key = f"{THROUGH}-{port}"
    passing = [host for host, passes in hosts.items() if passes]
    routes = _routes({"cluster": "PassthroughCluster", "timeout": "0s"}, name=THROUGH)
    others = [{"name": "kept", "domains": sorted(kept)}] if kept else []
    config = _config(key, [{"name": THROUGH, "domains": sorted(passing), "routes": routes}, *others])
    return _scope(key, route_configuration={**config, "ignore_port_in_host_matching": True})


def _direct() -> Json:
    routes = _routes(_action(tunnel=""), name=DIRECT, connect=_action(tunnel=TUNNEL))
    return _config(DIRECT, [{"name": DIRECT, "domains": ["*"], "routes": routes}])


def _config(name: str, virtual_hosts: list[Json]) -> Json:
    return {"name": name, "request_headers_to_remove": list(HEADERS), "virtual_hosts": virtual_hosts}


def _routes(action: Json, *, name: str, connect: Json | None = None) -> list[Json]:
    upgrade = {"upgrade_configs": [{"upgrade_type": "CONNECT", "connect_config": {}}]}
    return [
        {"name": name, "match": {"connect_matcher": {}}, "route": {**(connect or action), **upgrade}},
        {"name": name, "match": {"prefix": "/"}, "route": action},
    ]


def _action(*, tunnel: str) -> Json:
    text = Path(__file__).with_name("istio_cluster.lua").read_text(encoding="utf-8")
    specifier = typed(
        "envoy.router.cluster_specifier_plugin.lua",
        kind=LUA,
        source_code={"inline_string": f'local TUNNEL = "{tunnel}"\n{text}'},
        default_cluster="nowhere",
    )
    return {"inline_cluster_specifier_plugin": {"extension": specifier}, "timeout": "0s"}
