"""Whitebox under a control plane: an HTTP proxy of ours in Envoy's bootstrap, as istiod's own does not route.

The agent asks for REDIRECT, nothing is captured, and what is here is added by ISTIO_BOOTSTRAP_OVERRIDE: an HTTP proxy
that uses istiod's routes and clusters, the way out of the mesh, and TCP services on local ports (docs/whitebox.md).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from krun_launch import istio_scopes, istio_tcp, istio_whitebox_tunnel
from krun_launch.envoy_inbound import HTTP, MANAGER, OPTIONS, router, streaming, without_headers
from krun_launch.envoy_tls import Json, socket_address, typed
from krun_launch.istio_settings import IstioSettings

OVERRIDE = "istio-override.json"
SCOPES = "istio-scopes.json"
PROXY = "krun_proxy"

# Of Envoy and of the agent: nobody is led to them by the proxy.
PRIVATE = (15000, 15001, 15004, 15006, 15020, 15021, 15053, 15090)
# A program that calls many hosts is no fault: Envoy would refuse the 1025th within five minutes.
DNS_CACHE: Json = {"name": "outside", "dns_lookup_family": "ALL", "max_hosts": 1 << 16}


def override(settings: IstioSettings) -> Json:
    """What is added to the bootstrap that the agent writes: lists are appended to."""
    within = _manager(
        settings,
        name=istio_scopes.TUNNEL,
        upgrades=("websocket",),
        first=[_lua("tunnelled")],
        early=istio_whitebox_tunnel.recalled(),
    )
    return {
        "static_resources": {
            "listeners": [_listener(settings), istio_whitebox_tunnel.listener(within), *istio_tcp.listeners(settings)],
            "clusters": [_outside(), istio_whitebox_tunnel.cluster()],
        }
    }


def files(settings: IstioSettings) -> dict[str, str]:
    """The files by name, below the agent's folder: the override, and the scopes until ports are known."""
    return {
        OVERRIDE: json.dumps(override(settings)) + "\n",
        SCOPES: istio_scopes.render(()),
    }


def _listener(settings: IstioSettings) -> Json:
    """The HTTP proxy: absolute and relative form, CONNECT, upgrades. On loopback only, as anyone may use it."""
    manager = _manager(
        settings,
        name=PROXY,
        upgrades=("CONNECT", "websocket"),
        first=[_lua("request", constants=_constants(settings)), _lua("through")],
        late=[istio_whitebox_tunnel.remembered()],
    )
    return {
        "name": PROXY,
        "traffic_direction": "OUTBOUND",
        **socket_address(settings.loopback, settings.proxy_port),
        "filter_chains": [{"filters": [manager]}],
    }


def _manager(
    settings: IstioSettings,
    *,
    name: str,
    upgrades: Sequence[str],
    first: Sequence[Json],
    early: Sequence[Json] = (),
    late: Sequence[Json] = (),
) -> Json:
    """The HTTP connection manager of the proxy or within a CONNECT; ``first`` knows where a request goes."""
    forward = typed(
        "envoy.filters.http.dynamic_forward_proxy",
        kind=f"{HTTP}.dynamic_forward_proxy.v3.FilterConfig",
        dns_cache_config=DNS_CACHE,
    )
    # What istiod writes into routes of a VirtualService (faults, cross-origin rules) is for these two.
    virtual_service = [
        typed("envoy.filters.http.fault", kind=f"{HTTP}.fault.v3.HTTPFault"),
        typed("envoy.filters.http.cors", kind=f"{HTTP}.cors.v3.Cors"),
    ]
    return typed(
        "envoy.filters.network.http_connection_manager",
        kind=MANAGER,
        stat_prefix=name,
        **streaming(),
        http_protocol_options={"accept_http_10": True},
        early_header_mutation_extensions=[*without_headers("x-krun-", "proxy-"), *early],
        use_remote_address=False,
        # A request goes out as the application wrote it; the receiving sidecar normalises paths.
        normalize_path=False,
        upgrade_configs=[{"upgrade_type": upgrade} for upgrade in upgrades],
        scoped_routes=_scoped_routes(settings, name=name),
        http_filters=[*first, _lua("policy"), _lua("route"), *virtual_service, *late, forward, router()],
        local_reply_config={"mappers": _answers()},
    )


def _scoped_routes(settings: IstioSettings, *, name: str) -> Json:
    key = {"header_value_extractor": {"name": istio_scopes.SCOPE, "index": 0, "element_separator": " "}}
    path = str(settings.run_dir / SCOPES)
    return {
        "name": name,
        "scope_key_builder": {"fragments": [key]},
        # To the letter as in istiod's own listeners: Envoy then has the routes of most ports already, and once.
        "rds_config_source": {"ads": {}, "initial_fetch_timeout": "0s", "resource_api_version": "V3"},
        "scoped_rds": {
            "scoped_rds_config_source": {"path_config_source": {"path": path}, "resource_api_version": "V3"}
        },
    }


def _lua(step: str, *, constants: str = "") -> Json:
    text = Path(__file__).with_name(f"istio_{step}.lua").read_text(encoding="utf-8")
    return typed(
        f"krun.{step}",
        kind=f"{HTTP}.lua.v3.Lua",
        default_source_code={"inline_string": constants + text},
        # A route that a step has found stays when it takes our headers off.
        clear_route_cache=False,
    )


def _constants(settings: IstioSettings) -> str:
    """What the script is to know: a DNS label and numbers, no quotes."""
    private = ", ".join(f"[{port}] = true" for port in PRIVATE)
    return f'local OWN = "{settings.namespace}"\nlocal PRIVATE = {{ {private} }}\nlocal PROXY = {settings.proxy_port}\n'


def _answers() -> list[Json]:
    """What Envoy's own answers say, in our words."""
    return [
        _answer(
            "krun: %REQ(:AUTHORITY)% is nothing that the mesh knows, and it allows no hosts outside of it",
            flag="NC",
            policy="deny",
            status=502,
        ),
        _answer("krun: %REQ(:AUTHORITY)%: https needs CONNECT", flag="NC", policy="encrypted", status=501),
        *(
            _answer(
                "krun: %REQ(:AUTHORITY)%: no answer through %UPSTREAM_CLUSTER% %UPSTREAM_HOST%: %LOCAL_REPLY_BODY%"
                " %UPSTREAM_TRANSPORT_FAILURE_REASON%",
                flag=flag,
            )
            for flag in ("UF", "UH", "UC", "DF")
        ),
    ]


def _answer(text: str, *, flag: str, policy: str = "", status: int = 0) -> Json:
    flags: Json = {"response_flag_filter": {"flags": [flag]}}
    header = {"name": istio_scopes.POLICY, "string_match": {"exact": policy}}
    both = {"and_filter": {"filters": [flags, {"header_filter": {"header": header}}]}}
    body = {
        "text_format_source": {"inline_string": text + "\n"},
        "omit_empty_values": True,
        "content_type": "text/plain",
    }
    answer: Json = {"filter": both if policy else flags, "body_format_override": body}
    return {**answer, "status_code": status} if status else answer


def _outside() -> Json:
    """The way out of the mesh. istiod's cluster of this name needs an address that only capture knows; ours wins."""
    kind = "envoy.extensions.clusters.dynamic_forward_proxy.v3.ClusterConfig"
    same: Json = {"use_downstream_protocol_config": {"http_protocol_options": {}, "http2_protocol_options": {}}}
    # Below the 5 s of common servers: a request on a connection that the server is about to close would be lost.
    http = typed("", kind=OPTIONS, common_http_protocol_options={"idle_timeout": "4s"}, **same)["typed_config"]
    return {
        "name": "PassthroughCluster",
        "connect_timeout": "10s",
        "lb_policy": "CLUSTER_PROVIDED",
        "circuit_breakers": istio_whitebox_tunnel.NO_LIMITS,
        "cluster_type": typed(
            "envoy.clusters.dynamic_forward_proxy",
            kind=kind,
            dns_cache_config=DNS_CACHE,
            # Envoy's word for a cluster without TLS: an application's own goes through CONNECT, and is verified by it.
            allow_insecure_cluster_options=True,
        ),
        "typed_extension_protocol_options": {OPTIONS: http},
    }
