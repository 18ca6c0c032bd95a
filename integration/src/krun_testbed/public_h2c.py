"""An application that speaks HTTP/2 without TLS: a real Envoy, with the recorder behind it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

from krun_testbed import components, processes
from krun_testbed.processes import Running

TYPE = "type.googleapis.com/envoy.extensions"
PORT = 8088
STREAMS = 10  # of one connection: more at once need more connections


@contextlib.contextmanager
def http2_app(address: str, folder: Path, *, requests: int = 0, behind: int = 8080) -> Iterator[Running]:
    """The application at ``PORT``; after so many requests (0: never) it retires a connection by GOAWAY."""
    config = folder / "app.json"
    config.write_text(json.dumps(configuration(address=address, requests=requests, behind=behind)))
    argv = [components.envoy(), "-c", str(config), "--concurrency", "1", "--disable-hot-restart", "-l", "error"]
    with processes.start([*argv, "--drain-time-s", "1"], env=processes.environment()) as running:
        processes.wait_for_port(address, PORT)
        yield running


def configuration(*, address: str, requests: int, behind: int) -> dict[str, object]:
    """Envoy's configuration: HTTP/2 alone comes in, HTTP/1.1 goes out, trailers and 100 pass."""

    def place(port: int) -> dict[str, object]:
        return {"socket_address": {"address": address, "port_value": port}}

    router = {"@type": f"{TYPE}.filters.http.router.v3.Router"}
    route = {"match": {"prefix": "/"}, "route": {"cluster": "recorder", "timeout": "0s"}}
    manager: dict[str, object] = {
        "@type": f"{TYPE}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "app",
        "codec_type": "HTTP2",
        "proxy_100_continue": True,
        "http2_protocol_options": {"max_concurrent_streams": STREAMS},
        "drain_timeout": "0.1s",
        "common_http_protocol_options": {"max_requests_per_connection": requests} if requests else {},
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
        "http_filters": [{"name": "router", "typed_config": router}],
    }
    endpoint = {"lb_endpoints": [{"endpoint": {"address": place(behind)}}]}
    cluster = {
        "name": "recorder",
        "load_assignment": {"cluster_name": "recorder", "endpoints": [endpoint]},
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": f"{TYPE}.upstreams.http.v3.HttpProtocolOptions",
                "common_http_protocol_options": {"max_requests_per_connection": 1},  # so that no POST meets an old one
                "explicit_http_config": {"http_protocol_options": {"enable_trailers": True}},
            }
        },
    }
    filters = [{"name": "http", "typed_config": manager}]
    listener = {"name": "app", "address": place(PORT), "filter_chains": [{"filters": filters}]}
    return {"static_resources": {"listeners": [listener], "clusters": [cluster]}}
