"""Envoy's port for what the kernel redirects: names of the mesh by mTLS, all else on to where it was going."""

from __future__ import annotations

import ipaddress

from krun_launch.contract import PORTS
from krun_launch.envoy_outbound import manager
from krun_launch.envoy_tls import Json, socket_address, typed
from krun_launch.mesh_names import VIRTUAL_RANGE
from krun_launch.static_settings import StaticSettings

TCP_PROXY = "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy"
ORIGINAL = "envoy.extensions.filters.listener.original_dst.v3.OriginalDst"
PORT = PORTS["ENVOY_CAPTURED_OUT"]


def listener(settings: StaticSettings) -> Json:
    """The listener. Nothing looks into a connection that is not for the mesh: the server may be the first to speak."""
    virtual = ipaddress.IPv4Network(VIRTUAL_RANGE)
    prefix = {"address_prefix": str(virtual.network_address), "prefix_len": virtual.prefixlen}
    return {
        "name": "captured",
        "traffic_direction": "OUTBOUND",
        **socket_address(settings.loopback, PORT),
        "listener_filters": [typed("envoy.filters.listener.original_dst", kind=ORIGINAL)],
        "filter_chains": [
            # Somebody dials this port itself: handed on it would come back, and back.
            {"filter_chain_match": {"destination_port": PORT}, "filters": [_tcp("nowhere")]},
            {"filter_chain_match": {"prefix_ranges": [prefix]}, "filters": [manager(settings, is_captured=True)]},
        ],
        "default_filter_chain": {"filters": [_tcp("original")]},
    }


def clusters() -> list[Json]:
    """Where the connection was going, and nowhere."""
    return [
        {
            "name": "original",
            "type": "ORIGINAL_DST",
            "lb_policy": "CLUSTER_PROVIDED",
            # As long as a kernel tries by itself, nearly: the application decides when it has waited enough.
            "connect_timeout": "60s",
        },
        {"name": "nowhere", "type": "STATIC", "connect_timeout": "1s"},
    ]


def _tcp(cluster: str) -> Json:
    # No end for a quiet connection: the application has not asked for one.
    return typed(
        "envoy.filters.network.tcp_proxy", kind=TCP_PROXY, stat_prefix=cluster, cluster=cluster, idle_timeout="0s"
    )
