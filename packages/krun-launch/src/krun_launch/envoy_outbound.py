"""Envoy's HTTP proxy: from the application to the mesh by mTLS, and to everything else as it is."""

from __future__ import annotations

import ipaddress
from pathlib import Path

from krun_launch.envoy_inbound import HTTP, MANAGER, OPTIONS, local_reply, router, streaming, without_headers
from krun_launch.envoy_tls import TLS, Json, common, socket_address, typed
from krun_launch.static_settings import ADMIN_PORT, MTLS_PORT, PROXY_PORT, StaticSettings

# The Lua filter puts the server name here; routes and clusters read it; the clusters' own filters take it off again
# (a route's request_headers_to_remove is too early: the cluster then finds no name).
SNI = "x-krun-sni"
IN_MESH: Json = {"name": SNI, "present_match": True}
# What a sidecar offers: the receiving one, and an AUTO_PASSTHROUGH gateway, choose their filter chain by it.
ALPN_HTTP = ("istio-h2", "istio", "h2", "http/1.1")
ALPN_UPGRADE = ("istio-http/1.1", "istio", "http/1.1")
ALPN_TCP = ("istio",)
# The resolver of the C library: /etc/hosts, search domains and nsswitch, as the application has them.
RESOLVER = typed(
    "envoy.network.dns_resolver.getaddrinfo",
    kind="envoy.extensions.network.dns_resolver.getaddrinfo.v3.GetAddrInfoDnsResolverConfig",
    num_resolver_threads=4,
)
DNS_CACHE = {"name": "outside", "dns_lookup_family": "ALL", "typed_dns_resolver_config": RESOLVER}


def listener(settings: StaticSettings) -> Json:
    """The HTTP proxy: absolute and relative form, CONNECT, upgrades. On loopback only, as anyone may use it."""
    return {
        "name": "outbound",
        "traffic_direction": "OUTBOUND",
        **socket_address(settings.loopback, PROXY_PORT),
        "filter_chains": [{"filters": [manager(settings)]}],
    }


def manager(settings: StaticSettings, *, is_captured: bool = False) -> Json:
    """The HTTP connection manager of the proxy, or of connections to the mesh that the kernel redirects."""
    fields = _manager(settings, is_captured=is_captured)
    return typed("envoy.filters.network.http_connection_manager", kind=MANAGER, **fields)


def clusters(settings: StaticSettings) -> list[Json]:
    """Three ways to the gateway, which differ in what TLS offers, and two ways to the rest of the world."""
    options: Json = {"auto_config": {}}
    upgrade: Json = {"explicit_http_config": {"http_protocol_options": {}}}
    same: Json = {"use_downstream_protocol_config": {"http_protocol_options": {}, "http2_protocol_options": {}}}
    return [
        _gateway(settings, name="gateway", alpn=ALPN_HTTP, options=options),
        _gateway(settings, name="gateway_upgrade", alpn=ALPN_UPGRADE, options=upgrade),
        _gateway(settings, name="gateway_tcp", alpn=ALPN_TCP, options=upgrade),
        _outside(options=same),
    ]


def names_script(settings: StaticSettings, *, is_captured: bool = False) -> str:
    """The Lua text that decides which names are mesh names; its constants are DNS labels and addresses: no quotes."""
    namespaces = ", ".join(f'["{name}"] = true' for name in settings.mesh_namespaces)
    private = ", ".join(f"[{port}] = true" for port in (ADMIN_PORT, MTLS_PORT, PROXY_PORT))
    constants = (
        f'local OWN = "{settings.namespace}"\n'
        f"local NAMESPACES = {{ {namespaces} }}\n"
        f'local ADDRESS = "{settings.loopback}"\n'
        f"local PRIVATE = {{ {private} }}\n"
        f"local PROXY = {PROXY_PORT}\n"
        f"local CAPTURED = {'true' if is_captured else 'false'}\n"
    )
    return constants + Path(__file__).with_name("names.lua").read_text(encoding="utf-8")


def _manager(settings: StaticSettings, *, is_captured: bool) -> Json:
    names = typed(
        "envoy.filters.http.lua",
        kind=f"{HTTP}.lua.v3.Lua",
        default_source_code={"inline_string": names_script(settings, is_captured=is_captured)},
    )
    forward = typed(
        "envoy.filters.http.dynamic_forward_proxy",
        kind=f"{HTTP}.dynamic_forward_proxy.v3.FilterConfig",
        dns_cache_config=DNS_CACHE,
    )
    upgrades = ["websocket"] if is_captured else ["CONNECT", "websocket"]
    return {
        "stat_prefix": "captured" if is_captured else "outbound",
        **streaming(),
        "http_protocol_options": {"accept_http_10": True},
        "early_header_mutation_extensions": without_headers("x-envoy-", "x-krun-", "proxy-"),
        "use_remote_address": False,
        # A request goes out as the application wrote it; the receiving sidecar gives it an id when it has none.
        "generate_request_id": False,
        "normalize_path": False,
        "upgrade_configs": [{"upgrade_type": upgrade} for upgrade in upgrades],
        # What is captured and names nobody of the mesh is refused by the names filter: it never gets further.
        "http_filters": [names, router()] if is_captured else [names, forward, router()],
        "local_reply_config": local_reply(
            "krun: %REQ(:AUTHORITY)%: no answer through %UPSTREAM_CLUSTER% %UPSTREAM_HOST%: %LOCAL_REPLY_BODY%"
            " %UPSTREAM_TRANSPORT_FAILURE_REASON%",
            flags=("UF", "UH", "UC", "DF"),
        ),
        "route_config": {
            "name": "captured" if is_captured else "outbound",
            "virtual_hosts": [
                {"name": "all", "domains": ["*"], "routes": _routes_of_mesh() if is_captured else _routes()}
            ],
        },
    }


def _routes() -> list[Json]:
    connect = {"upgrade_configs": [{"upgrade_type": "CONNECT", "connect_config": {}}]}
    return [
        _route({"connect_matcher": {}, "headers": [IN_MESH]}, cluster="gateway_tcp", **connect),
        _route({"connect_matcher": {}}, cluster="outside", **connect),
        *_routes_of_mesh(),
        _route({"prefix": "/"}, cluster="outside"),
    ]


def _routes_of_mesh() -> list[Json]:
    upgrade = [IN_MESH, {"name": "upgrade", "present_match": True}]
    # REFUSED_STREAM says that the peer has not looked at the request (RFC 9113 §8.7): all methods may be sent again.
    retry = {"retry_on": "refused-stream", "num_retries": 2}
    return [
        _route({"prefix": "/", "headers": upgrade}, cluster="gateway_upgrade"),
        _route({"prefix": "/", "headers": [IN_MESH]}, cluster="gateway", retry_policy=retry),
    ]


def _route(match: Json, *, cluster: str, **action: object) -> Json:
    return {"match": match, "route": {"cluster": cluster, "timeout": "0s", **action}}


def _gateway(settings: StaticSettings, *, name: str, alpn: tuple[str, ...], options: Json) -> Json:
    """A cluster of the gateway alone: the server name picks the service, and each gets connections of its own."""
    sni = {"auto_sni": True, "override_auto_sni_header": SNI}
    http = typed("", kind=OPTIONS, upstream_http_protocol_options=sni, http_filters=_upstream_filters(), **options)
    tls = {"common_tls_context": common(settings, alpn=alpn)}
    endpoint = {"endpoint": socket_address(settings.gateway_host, settings.gateway_port)}
    return {
        "name": name,
        "connect_timeout": "5s",
        **_discovery(settings.gateway_host),
        "typed_extension_protocol_options": {OPTIONS: http["typed_config"]},
        "transport_socket": typed("envoy.transport_sockets.tls", kind=f"{TLS}.UpstreamTlsContext", **tls),
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
    }


def _upstream_filters() -> list[Json]:
    remove = {"request_mutations": [{"remove": SNI}]}
    return [
        typed(
            "envoy.filters.http.header_mutation",
            kind=f"{HTTP}.header_mutation.v3.HeaderMutation",
            mutations=remove,
        ),
        typed("envoy.filters.http.upstream_codec", kind=f"{HTTP}.upstream_codec.v3.UpstreamCodec"),
    ]


def _discovery(host: str) -> Json:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return {"type": "STRICT_DNS", "dns_lookup_family": "ALL", "typed_dns_resolver_config": RESOLVER}
    return {"type": "STATIC"}


def _outside(*, options: Json) -> Json:
    kind = "envoy.extensions.clusters.dynamic_forward_proxy.v3.ClusterConfig"
    # Envoy's word for a cluster that does not verify names by TLS. This one has no TLS: an application's own goes
    # through CONNECT, and the application verifies it.
    insecure = {"allow_insecure_cluster_options": True}
    # Below the 5 s of common servers: a request on a connection that the server is about to close would be lost.
    http = typed("", kind=OPTIONS, common_http_protocol_options={"idle_timeout": "4s"}, **options)["typed_config"]
    return {
        "name": "outside",
        "connect_timeout": "10s",
        "lb_policy": "CLUSTER_PROVIDED",
        "cluster_type": typed(
            "envoy.clusters.dynamic_forward_proxy", kind=kind, dns_cache_config=DNS_CACHE, **insecure
        ),
        "typed_extension_protocol_options": {OPTIONS: http},
    }
