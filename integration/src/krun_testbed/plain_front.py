"""A plain front for the tunnel: a real Envoy, HTTP/2 in and out, with few streams on a connection."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

from krun_testbed import components, processes


def envoy_config(*, address: str, port: int, upstream: int, streams: int) -> dict[str, object]:
    """A plain front: HTTP/2 in and out, few streams on a connection."""
    manager = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
    options = "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    router = {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}
    route = {"match": {"prefix": "/"}, "route": {"cluster": "hboned", "timeout": "0s"}}
    http = {
        "@type": manager,
        "stat_prefix": "front",
        "codec_type": "HTTP2",
        "http2_protocol_options": {"max_concurrent_streams": streams},
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
        "http_filters": [{"name": "router", "typed_config": router}],
    }

    def socket_of(number: int) -> dict[str, object]:
        return {"socket_address": {"address": address, "port_value": number}}

    endpoint = {"lb_endpoints": [{"endpoint": {"address": socket_of(upstream)}}]}
    cluster = {
        "name": "hboned",
        "type": "STATIC",
        "load_assignment": {"cluster_name": "hboned", "endpoints": [endpoint]},
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": options,
                "explicit_http_config": {"http2_protocol_options": {}},
            }
        },
    }
    filters = [{"name": "http", "typed_config": http}]
    listener = {"name": "front", "address": socket_of(port), "filter_chains": [{"filters": filters}]}
    return {"static_resources": {"listeners": [listener], "clusters": [cluster]}}


@contextlib.contextmanager
def front(address: str, folder: Path, *, streams: int) -> Iterator[None]:
    config = folder / "envoy.json"
    config.write_text(json.dumps(envoy_config(address=address, port=9000, upstream=15009, streams=streams)))
    argv = [components.envoy(), "-c", str(config), "--concurrency", "1", "--disable-hot-restart", "-l", "error"]
    with processes.start(argv, env=processes.environment()):
        processes.wait_for_port(address, 9000)
        yield
