"""Envoy's configuration for the front of Cloud Run: decides it, from the platform's documented rules; starts nothing.

Rules and where Envoy has them:
- TLS with HTTP/2 and HTTP/1.1; routes by host name, an unknown host is 404.
- An ID token for ``https://HOST`` in Authorization or, first, X-Serverless-Authorization. None: 403; a wrong one: 401
  or 403. It is taken out before the container, which cannot check it again anyhow (Cloud Run removes the signature).
- CONNECT and TRACE never reach a container, nor does ``/healthz``.
- The request timeout counts for the whole stream; 100 streams at a time on one HTTP/2 connection.
- HTTP/2 cleartext to the container with --use-http2, else HTTP/1.1, where WebSocket passes. Headers that a real
  platform does not touch (x-forwarded-client-cert, x-envoy-*) are passed as they come: removing them is the
  container's business, and tests want to see it done.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from krun_testbed.google_tokens import ISSUER

STREAMS = 100
SERVERLESS = "x-serverless-authorization"
AUTHORIZATION = "authorization"
TYPE = "type.googleapis.com/envoy"
HTTP = f"{TYPE}.extensions.filters.http"
NOT_AUTHENTICATED = "The request was not authenticated. Set the proper Authorization header."

Json = dict[str, object]


@dataclass(frozen=True, kw_only=True)
class Backend:
    """A service as the front sees it. ``redirect``: a host to which it sends whoever asks, instead of an answer."""

    name: str
    host: str
    address: str
    port: int
    allow_unauthenticated: bool
    http2: bool = True
    redirect: str = ""


@dataclass(frozen=True, kw_only=True)
class Front:
    """What the front is configured with; paths are of PEM files, the timeout is in seconds.

    ``log``: a file that gets a line of JSON for each request when it has ended. ``connection_life``: after so many
    seconds a connection is told to take no further requests; 0 for no limit.
    """

    listen: tuple[str, int]
    certificate: str
    key: str
    jwks: Mapping[str, object]
    request_timeout: float
    log: str = ""
    connection_life: float = 0.0


def bootstrap(front: Front, backends: tuple[Backend, ...]) -> Json:
    """The whole configuration."""
    return {
        "static_resources": {
            "listeners": [_listener(front, backends)],
            "clusters": [_cluster(backend) for backend in backends],
        }
    }


def _listener(front: Front, backends: tuple[Backend, ...]) -> Json:
    address, port = front.listen
    tls = {
        "@type": f"{TYPE}.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        "common_tls_context": {
            "alpn_protocols": ["h2", "http/1.1"],
            "tls_certificates": [
                {"certificate_chain": {"filename": front.certificate}, "private_key": {"filename": front.key}}
            ],
        },
    }
    return {
        "name": "front",
        "address": _socket(address, port),
        "filter_chains": [
            {
                "transport_socket": {"name": "tls", "typed_config": tls},
                "filters": [{"name": "http", "typed_config": _connection_manager(front, backends)}],
            }
        ],
    }


def _connection_manager(front: Front, backends: tuple[Backend, ...]) -> Json:
    hosts = [_virtual_host(backend, timeout=front.request_timeout) for backend in backends]
    return {
        "@type": f"{TYPE}.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "front",
        "server_name": "Google Frontend",
        "use_remote_address": True,
        "generate_request_id": False,
        "forward_client_cert_details": "ALWAYS_FORWARD_ONLY",
        "strip_any_host_port": True,
        "stream_idle_timeout": "0s",  # the request timeout is the only one
        "common_http_protocol_options": (
            {"max_connection_duration": f"{front.connection_life:g}s"} if front.connection_life else {}
        ),
        "http2_protocol_options": {"max_concurrent_streams": STREAMS},
        # Envoy says 408 where the platform says 504.
        "local_reply_config": {
            "mappers": [{"filter": {"status_code_filter": _status_is(408)}, "status_code": 504}],
        },
        "http_filters": [
            {"name": "tokens", "typed_config": _tokens(front, backends)},
            {"name": "audience", "typed_config": {"@type": f"{HTTP}.rbac.v3.RBAC"}},
            {
                "name": "router",
                "typed_config": {"@type": f"{HTTP}.router.v3.Router", "suppress_envoy_headers": True},
            },
        ],
        "route_config": {"name": "services", "virtual_hosts": hosts},
        "access_log": [_log(front.log)] if front.log else [],
    }


def _log(path: str) -> Json:
    """What is noted of a request; of its token the address of the account, and nothing else."""
    claims = "DYNAMIC_METADATA(envoy.filters.http.jwt_authn:claims"
    fields = {
        "host": "%REQ(:AUTHORITY)%",
        "method": "%REQ(:METHOD)%",
        "path": "%REQ(:PATH)%",
        "status": "%RESPONSE_CODE%",
        "details": "%RESPONSE_CODE_DETAILS%",
        "email": f"%{claims}:email)%",
        "duration_ms": "%DURATION%",
        "connection": "%CONNECTION_ID%",
    }
    file = {"@type": f"{TYPE}.extensions.access_loggers.file.v3.FileAccessLog", "path": path}
    return {"name": "file", "typed_config": {**file, "log_format": {"json_format": fields}}}


def _status_is(status: int) -> Json:
    return {"comparison": {"op": "EQ", "value": {"default_value": status, "runtime_key": "front.status"}}}


def _virtual_host(backend: Backend, *, timeout: float) -> Json:
    # CONNECT needs no line: it matches no route but one made for it, and is 404.
    refused = [
        _answer({"prefix": "/", "headers": [_header(":method", exact="TRACE")]}, 405),
        _answer({"path": "/healthz"}, 404),
    ]
    if backend.redirect:
        there = {"host_redirect": backend.redirect, "response_code": "TEMPORARY_REDIRECT"}
        routes: list[Json] = [{"match": {"prefix": "/"}, "redirect": there}]
    elif backend.allow_unauthenticated:
        routes = [_forward(backend, {"prefix": "/"}, timeout=timeout)]
    else:
        routes = [
            _forward(backend, {"prefix": "/", "headers": [_header(name)]}, timeout=timeout, token=name)
            for name in (SERVERLESS, AUTHORIZATION)
        ]
        routes.append(_answer({"prefix": "/"}, 403, NOT_AUTHENTICATED))
    return {"name": backend.name, "domains": [backend.host], "routes": [*refused, *routes]}


def _header(name: str, *, exact: str = "") -> Json:
    return {"name": name, "string_match": {"exact": exact}} if exact else {"name": name, "present_match": True}


def _answer(match: Json, status: int, body: str = "") -> Json:
    return {"match": match, "direct_response": {"status": status, "body": {"inline_string": body}}}


def _forward(backend: Backend, match: Json, *, timeout: float, token: str = "") -> Json:
    route: Json = {
        "match": match,
        "route": {
            "cluster": backend.name,
            # `timeout` starts when the request has ended, which a tunnel's has not: this one counts from its start.
            "timeout": "0s",
            "max_stream_duration": {"max_stream_duration": f"{timeout:g}s"},
        },
        "request_headers_to_remove": [SERVERLESS],
    }
    if not backend.http2:
        forwarded = route["route"]
        assert isinstance(forwarded, dict)
        forwarded["upgrade_configs"] = [{"upgrade_type": "websocket"}]
    if token:
        requirement = {
            "@type": f"{HTTP}.jwt_authn.v3.PerRouteConfig",
            "requirement_name": _provider(backend, token),
        }
        route["typed_per_filter_config"] = {"tokens": requirement, "audience": _audience(backend)}
    return route


def _audience(backend: Backend) -> Json:
    """The audience to the letter: jwt_authn by itself takes it without https:// and with a slash at its end too."""
    claim = {
        "filter": "envoy.filters.http.jwt_authn",  # the filter's own name, whatever it is called in the chain
        "path": [{"key": "claims"}, {"key": "aud"}],
        "value": {"string_match": {"exact": _url(backend)}},
    }
    policy = {"permissions": [{"any": True}], "principals": [{"metadata": claim}]}
    return {
        "@type": f"{HTTP}.rbac.v3.RBACPerRoute",
        "rbac": {"rules": {"action": "ALLOW", "policies": {"audience": policy}}},
    }


def _url(backend: Backend) -> str:
    return f"https://{backend.host}"


def _tokens(front: Front, backends: tuple[Backend, ...]) -> Json:
    names = [
        (backend, header)
        for backend in backends
        if not backend.allow_unauthenticated
        for header in (SERVERLESS, AUTHORIZATION)
    ]
    providers = {
        _provider(backend, header): {
            "issuer": ISSUER,
            "audiences": [_url(backend)],
            "local_jwks": {"inline_string": json.dumps(front.jwks)},
            "from_headers": [{"name": header, "value_prefix": "Bearer "}],
            "forward": False,
            "payload_in_metadata": "claims",
            "clock_skew_seconds": 5,
        }
        for backend, header in names
    }
    return {
        "@type": f"{HTTP}.jwt_authn.v3.JwtAuthentication",
        "providers": providers,
        "requirement_map": {name: {"provider_name": name} for name in providers},
    }


def _provider(backend: Backend, header: str) -> str:
    return f"{backend.name} {header}"


def _cluster(backend: Backend) -> Json:
    options = {
        "@type": f"{TYPE}.extensions.upstreams.http.v3.HttpProtocolOptions",
        # Trailers pass, as between the platform's parts: Envoy drops those of HTTP/1.1 unless asked.
        "explicit_http_config": (
            {"http2_protocol_options": {}} if backend.http2 else {"http_protocol_options": {"enable_trailers": True}}
        ),
    }
    endpoint = {"endpoint": {"address": _socket(backend.address, backend.port)}}
    return {
        "name": backend.name,
        "connect_timeout": "5s",
        "load_assignment": {"cluster_name": backend.name, "endpoints": [{"lb_endpoints": [endpoint]}]},
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options},
    }


def _socket(address: str, port: int) -> Json:
    return {"socket_address": {"address": address, "port_value": port}}
