"""Envoy as either end of a tunnel: its configuration for the benchmark. POST, as hboned has it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Json = dict[str, Any]

TYPE = "type.googleapis.com/envoy.extensions"
NAME = "bench.example"  # of the server's certificate
# As large as what a tunnel of 100 ms and 1 Gbit/s needs; Envoy's own defaults would hold it back.
H2: Json = {
    "initial_stream_window_size": 16 << 20,
    "initial_connection_window_size": 24 << 20,
    "max_concurrent_streams": 20000,
}
MANY: Json = {"thresholds": [{"max_connections": 50000, "max_pending_requests": 50000, "max_requests": 50000}]}


def client(*, listeners: Mapping[int, int], address: str, server: tuple[str, int], root: Path | None) -> Json:
    """The client's end: each port of ours leads to a port at the server's end."""
    places = [listener(address, port, [[forward(target, server)]]) for port, target in listeners.items()]
    return {"static_resources": {"listeners": places, "clusters": [http2_cluster(server, root=root)]}}


def http2_cluster(server: tuple[str, int], *, root: Path | None) -> Json:
    """The server's end as a cluster, by TLS when there is a root to trust."""
    cluster: Json = {
        **static_cluster("server", *server),
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": f"{TYPE}.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http2_protocol_options": H2},
            }
        },
    }
    if root is not None:
        context: Json = {
            "@type": f"{TYPE}.transport_sockets.tls.v3.UpstreamTlsContext",
            "sni": NAME,
            "common_tls_context": {
                "alpn_protocols": ["h2"],
                "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
                "validation_context": {"trusted_ca": {"filename": str(root)}},
            },
        }
        cluster["transport_socket"] = {"name": "envoy.transport_sockets.tls", "typed_config": context}
    return cluster


def forward(target: int, server: tuple[str, int]) -> Json:
    """A filter that carries a connection through a POST of its own."""
    tunnel = {"hostname": f"{server[0]}:{server[1]}", "use_post": True, "post_path": f"/_hbone/{target}"}
    return tcp("server", tunneling_config=tunnel)


def server(*, address: str, port: int, targets: Sequence[tuple[str, int]], pair: tuple[Path, Path] | None) -> Json:
    """The server's end: POST /_hbone/PORT leads to that port of a target."""
    upgrade = [{"upgrade_type": "CONNECT", "connect_config": {"allow_post": True}}]
    post = [{"name": ":method", "string_match": {"exact": "POST"}}]
    routes = [
        {
            "match": {"path": f"/_hbone/{number}", "headers": post},
            "route": {"cluster": str(number), "timeout": "0s", "upgrade_configs": upgrade},
        }
        for _, number in targets
    ]
    manager: Json = {
        "@type": f"{TYPE}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "server",
        "codec_type": "HTTP2",
        "stream_idle_timeout": "0s",
        "http2_protocol_options": H2,
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
        "http_filters": [{"name": "router", "typed_config": {"@type": f"{TYPE}.filters.http.router.v3.Router"}}],
    }
    place = listener(address, port, [[{"name": "http", "typed_config": manager}]])
    if pair is not None:
        place["filter_chains"][0]["transport_socket"] = downstream(pair, alpn=["h2"])
    clusters = [static_cluster(str(number), host, number) for host, number in targets]
    return {"static_resources": {"listeners": [place], "clusters": clusters}}


def tls_server(*, address: str, port: int, target: tuple[str, int], pair: tuple[Path, Path]) -> Json:
    """TLS by itself before a target: what ``openssl s_client`` is led to."""
    place = listener(address, port, [[tcp("target")]])
    place["filter_chains"][0]["transport_socket"] = downstream(pair, alpn=[])
    return {"static_resources": {"listeners": [place], "clusters": [static_cluster("target", *target)]}}


def downstream(pair: tuple[Path, Path], *, alpn: Sequence[str]) -> Json:
    certificate = {"certificate_chain": {"filename": str(pair[0])}, "private_key": {"filename": str(pair[1])}}
    context: Json = {
        "@type": f"{TYPE}.transport_sockets.tls.v3.DownstreamTlsContext",
        "common_tls_context": {"alpn_protocols": list(alpn), "tls_certificates": [certificate]},
    }
    return {"name": "envoy.transport_sockets.tls", "typed_config": context}


def tcp(cluster: str, **more: object) -> Json:
    """A filter that carries a connection to a cluster."""
    kind = f"{TYPE}.filters.network.tcp_proxy.v3.TcpProxy"
    return {
        "name": "envoy.filters.network.tcp_proxy",
        "typed_config": {"@type": kind, "stat_prefix": "tcp", "cluster": cluster, **more},
    }


def listener(address: str, port: int, chains: Sequence[Sequence[Json]]) -> Json:
    return {
        "name": f"{address}:{port}",
        "address": place_of(address, port),
        "filter_chains": [{"filters": list(filters)} for filters in chains],
    }


def static_cluster(name: str, host: str, port: int) -> Json:
    endpoint = {"endpoint": {"address": place_of(host, port)}}
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "5s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
        "circuit_breakers": MANY,
    }


def place_of(address: str, port: int) -> Json:
    return {"socket_address": {"address": address, "port_value": port}}
