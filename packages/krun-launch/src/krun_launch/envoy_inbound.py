"""Envoy's mTLS port: from the mesh to the application."""

from __future__ import annotations

from krun_launch.envoy_tls import TLS, Json, common, socket_address, typed
from krun_launch.settings import H2C, HTTP1
from krun_launch.static_settings import MTLS_PORT, StaticSettings

HTTP = "envoy.extensions.filters.http"
MANAGER = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


def listener(settings: StaticSettings) -> Json:
    """The mTLS listener: a client without a certificate of our trust domain is refused in the handshake."""
    tls = {"require_client_certificate": True, "common_tls_context": common(settings, alpn=("h2", "http/1.1"))}
    return {
        "name": "inbound",
        "traffic_direction": "INBOUND",
        **socket_address(settings.loopback, MTLS_PORT),
        "filter_chains": [
            {
                "transport_socket": typed("envoy.transport_sockets.tls", kind=f"{TLS}.DownstreamTlsContext", **tls),
                "filters": [typed("envoy.filters.network.http_connection_manager", kind=MANAGER, **_manager())],
            }
        ],
    }


def clusters(settings: StaticSettings) -> list[Json]:
    """The application: HTTP/1.1, and its gRPC side, HTTP/2 without TLS."""
    http1, http2 = "http_protocol_options", "http2_protocol_options"
    app = http2 if settings.app_protocol == H2C else http1
    grpc = http1 if settings.app_protocol == HTTP1 else http2
    return [
        _cluster(settings, name="app", port=settings.app_port, protocol=app),
        _cluster(settings, name="app_grpc", port=settings.grpc_port, protocol=grpc),
    ]


def streaming() -> Json:
    """What both listeners share: no limit on how long a request or its silence lasts, as in Istio's sidecar.

    ``drain_timeout`` is the time from an HTTP/2 connection's first GOAWAY to its last one: long enough for requests
    that are on their way, and well within KRUN_DRAIN.
    """
    return {
        "codec_type": "AUTO",
        "stream_idle_timeout": "0s",
        "drain_timeout": "1s",
        "proxy_100_continue": True,
        "server_header_transformation": "PASS_THROUGH",
        "http2_protocol_options": {"allow_connect": True},
        # No address in x-forwarded-for makes a request internal (an empty list would mean all private ones).
        "internal_address_config": {"cidr_ranges": [{"address_prefix": "255.255.255.255", "prefix_len": 32}]},
    }


def without_headers(*prefixes: str) -> list[Json]:
    """Drop headers by prefix before anything of Envoy reads them."""
    mutations = [{"remove_on_match": {"key_matcher": {"prefix": prefix, "ignore_case": True}}} for prefix in prefixes]
    kind = "envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation"
    return [typed("envoy.http.early_header_mutation.header_mutation", kind=kind, mutations=mutations)]


def router() -> Json:
    """The last filter; it adds no header of its own."""
    return typed("envoy.filters.http.router", kind=f"{HTTP}.router.v3.Router", suppress_envoy_headers=True)


def local_reply(text: str, *, flags: tuple[str, ...]) -> Json:
    """The body of an answer that Envoy makes itself, for these response flags."""
    body = {
        "text_format_source": {"inline_string": text + "\n"},
        "omit_empty_values": True,
        "content_type": "text/plain",
    }
    return {"mappers": [{"filter": {"response_flag_filter": {"flags": list(flags)}}, "body_format_override": body}]}


def _manager() -> Json:
    return {
        # krun-launch reads the gauge http.inbound.downstream_rq_active when it drains.
        "stat_prefix": "inbound",
        **streaming(),
        "early_header_mutation_extensions": without_headers("x-envoy-", "x-krun-"),
        "forward_client_cert_details": "SANITIZE_SET",
        "set_current_client_cert_details": {"subject": True, "uri": True, "dns": True},
        # As Istio's sidecar: x-forwarded-for and -proto and the request id are the peer's, which has shown who it is;
        # the address that we see is the tunnel's end on this machine.
        "use_remote_address": False,
        "preserve_external_request_id": True,
        "normalize_path": True,
        "merge_slashes": False,
        "upgrade_configs": [{"upgrade_type": "websocket"}],
        "http_filters": [router()],
        "local_reply_config": local_reply(
            "krun: the application does not answer: %LOCAL_REPLY_BODY%", flags=("UF", "UH", "UC")
        ),
        "route_config": {
            "name": "inbound",
            "virtual_hosts": [
                {
                    "name": "app",
                    "domains": ["*"],
                    "routes": [
                        # application/grpc and application/grpc+…, not grpc-web, which is made for HTTP/1.1.
                        {"match": {"prefix": "/", "grpc": {}}, "route": {"cluster": "app_grpc", "timeout": "0s"}},
                        {"match": {"prefix": "/"}, "route": {"cluster": "app", "timeout": "0s"}},
                    ],
                }
            ],
        },
    }


def _cluster(settings: StaticSettings, *, name: str, port: int, protocol: str) -> Json:
    # Shorter than any server's own: a request on a connection that the server is about to close would be lost.
    idle = {"idle_timeout": "1s"}
    config: Json = {protocol: {}}
    options = typed("", kind=OPTIONS, explicit_http_config=config, common_http_protocol_options=idle)["typed_config"]
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "5s",
        "typed_extension_protocol_options": {OPTIONS: options},
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": socket_address(settings.loopback, port)}]}],
        },
    }
