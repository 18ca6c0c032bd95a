"""What a CONNECT to a service of the mesh leads to: HTTP in it is led by the mesh's routes, all else as it is.

Many clients use CONNECT for all that they send (gRPC, Node's fetch): weights, retries and balancing by request would be
lost on them. Where the CONNECT was for goes along as filter state of Envoy's, as with the kernel's original address.
"""

from __future__ import annotations

from krun_launch.envoy_inbound import HTTP
from krun_launch.envoy_tls import Json, typed
from krun_launch.istio_scopes import CLUSTER, CLUSTERS, PORT, TUNNEL
from krun_launch.istio_tcp import TCP_PROXY

LISTENER = "envoy.extensions.filters.listener"
HTTP_KINDS = ("http/1.0", "http/1.1", "h2c")
# A server that speaks first is heard after this time: until then it may be HTTP.
WAIT_FOR_CLIENT = "0.3s"
# Envoy's own key, which tcp_proxy reads, and one of ours.
STATE_CLUSTER = "envoy.tcp_proxy.cluster"
STATE_PORT = "krun.port"


# As many as there are descriptors, as in istiod's own clusters; Envoy would refuse the 1025th.
MOST = 2**32 - 1
NO_LIMITS: Json = {
    "thresholds": [
        {"max_connections": MOST, "max_pending_requests": MOST, "max_requests": MOST, "max_retries": MOST},
    ]
}


def listener(manager: Json) -> Json:
    """The listener within Envoy; ``manager`` is for what turns out to be HTTP."""
    http = {"transport_protocol": "raw_buffer", "application_protocols": list(HTTP_KINDS)}
    # The cluster is the filter state's; this one is none.
    tcp = typed(
        "envoy.filters.network.tcp_proxy", kind=TCP_PROXY, stat_prefix=TUNNEL, cluster="nowhere", idle_timeout="0s"
    )
    return {
        "name": TUNNEL,
        "traffic_direction": "OUTBOUND",
        "internal_listener": {},
        "listener_filters": [
            typed("envoy.filters.listener.tls_inspector", kind=f"{LISTENER}.tls_inspector.v3.TlsInspector"),
            typed("envoy.filters.listener.http_inspector", kind=f"{LISTENER}.http_inspector.v3.HttpInspector"),
        ],
        "listener_filters_timeout": WAIT_FOR_CLIENT,
        "continue_on_listener_filters_timeout": True,
        "filter_chains": [{"filter_chain_match": http, "filters": [manager]}],
        "default_filter_chain": {"filters": [tcp]},
    }


def cluster() -> Json:
    """The way from the proxy to that listener."""
    endpoint = {"address": {"envoy_internal_address": {"server_listener_name": TUNNEL}}}
    raw = typed("envoy.transport_sockets.raw_buffer", kind="envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer")
    return {
        "name": TUNNEL,
        "type": "STATIC",
        "circuit_breakers": NO_LIMITS,
        "transport_socket": typed(
            "envoy.transport_sockets.internal_upstream",
            kind="envoy.extensions.transport_sockets.internal_upstream.v3.InternalUpstreamTransport",
            transport_socket=raw,
        ),
        "load_assignment": {"cluster_name": TUNNEL, "endpoints": [{"lb_endpoints": [{"endpoint": endpoint}]}]},
    }


def remembered() -> Json:
    """The filter of the proxy that keeps what a CONNECT has said. Other requests have none of these headers."""
    return typed(
        "envoy.filters.http.set_filter_state",
        kind=f"{HTTP}.set_filter_state.v3.Config",
        on_request_headers=[
            {"object_key": STATE_CLUSTER, **_value(CLUSTER)},
            {"object_key": STATE_PORT, "factory_key": "envoy.string", **_value(PORT)},
        ],
    )


def recalled() -> list[Json]:
    """What puts it into the headers of a request within the tunnel, before anything looks at them."""
    mutations = [
        {
            "append": {
                "header": {"key": header, "value": f"%FILTER_STATE({key}:PLAIN)%"},
                "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
            }
        }
        for header, key in ((CLUSTERS, STATE_CLUSTER), (PORT, STATE_PORT))
    ]
    kind = "envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation"
    return [typed("envoy.http.early_header_mutation.header_mutation", kind=kind, mutations=mutations)]


def _value(header: str) -> Json:
    text = {"text_format_source": {"inline_string": f"%REQ({header})%"}, "omit_empty_values": True}
    return {"format_string": text, "shared_with_upstream": "ONCE", "skip_if_empty": True}
