"""Whitebox's HTTP proxy in a real Envoy: which way a request takes, with istiod's routes written down, not sent."""

from __future__ import annotations

import base64
import contextlib
import http.client
import http.server
import json
import resource as limits
import socket
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from krun_launch import istio_scopes, istio_settings, istio_whitebox
from krun_testbed import addresses, components, processes
from krun_testbed.certificates import Authority
from krun_testbed.static_mesh import WAIT, App, Server, admin, outside, read_until, ready, serving

pytestmark = pytest.mark.loopback

WEB = "web.demo.svc.cluster.local"
ALLOW = {"name": "allow_any", "match": {"prefix": "/"}, "route": {"cluster": "PassthroughCluster", "timeout": "0s"}}
BLOCK = {"name": "block_all", "match": {"prefix": "/"}, "direct_response": {"status": 502}}
INTERNAL = "type.googleapis.com/envoy.extensions.bootstrap.internal_listener.v3.InternalListener"


@dataclass(frozen=True, kw_only=True)
class Proxy:
    """It runs, and a server of each kind is behind its clusters."""

    address: str
    folder: Path
    envoy: processes.Running

    def call(self, url: str, *, host: str = "", **headers: str) -> tuple[int, Mapping[str, str], bytes]:
        """One request; ``host`` instead of a whole URL is the other form."""
        with contextlib.closing(http.client.HTTPConnection(self.address, 15007, timeout=WAIT)) as connection:
            given = {"Host": host} if host else {}
            connection.request(
                "GET", url, headers={**given, **{key.replace("_", "-"): headers[key] for key in headers}}
            )
            answer = connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()

    @contextlib.contextmanager
    def connect(self, authority: str) -> Iterator[tuple[socket.socket, str]]:
        """A CONNECT, and the status line of its answer."""
        with socket.create_connection((self.address, 15007), timeout=WAIT) as tunnel:
            tunnel.sendall(f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode())
            yield tunnel, read_until(tunnel, b"\r\n\r\n").split(b"\r\n")[0].decode()

    def through(self, authority: str, host: str) -> str:
        """The whole answer to a request within a CONNECT."""
        with self.connect(authority) as (tunnel, status):
            if " 200 " not in status:
                return status
            tunnel.sendall(f"GET /in HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
            return b"".join(iter(lambda: tunnel.recv(65536), b"")).decode()

    def scopes(self, policy: Mapping[str, Any], *clusters: str) -> None:
        """Replace the file, as krun-launch does, with istiod's part of it written down."""
        content = json.loads(istio_scopes.scopes_of("".join(clusters)))
        for resource in content["resources"]:
            if name := resource.pop("route_configuration_name", ""):
                resource["route_configuration"] = _routes(name, policy)
        new = self.folder / "new"
        new.write_text(json.dumps(content))
        new.rename(self.folder / istio_whitebox.SCOPES)


class First(App):
    """Speaks first."""

    def handle(self) -> None:
        self.wfile.write(b"220 hello\r\n")
        self.wfile.write(self.rfile.readline())


def clusters(*ports: int, host: str = WEB, kind: str = "EDS") -> list[str]:
    """What Envoy says of clusters that istiod has sent."""
    return [f'"name": "outbound|{port}||{host}",\n "type": "{kind}"' for port in ports]


def _routes(name: str, policy: Mapping[str, Any]) -> dict[str, Any]:
    """A route configuration as istiod makes one, for the only service that it knows, and for all else."""
    service = {
        "name": f"{WEB}:{name}",
        "domains": [WEB, "web.demo.svc", "web.demo", "web"],
        "routes": [
            # A route of a VirtualService has no name, unless somebody has given it one.
            {"match": {"prefix": "/unnamed"}, **_to(f"outbound|{name}||{WEB}", "unnamed")},
            {"name": "default", "match": {"prefix": "/"}, **_to(f"outbound|{name}||{WEB}", name)},
        ],
    }
    if name == "81":
        service["routes"] = service["routes"][:1]
    hosts = [service] if name in ("80", "81", "8080") else []
    return {
        "name": name,
        "validate_clusters": False,
        "ignore_port_in_host_matching": True,
        "virtual_hosts": [*hosts, {"name": policy["name"], "domains": ["*"], "routes": [dict(policy)]}],
    }


def _to(cluster: str, says: str) -> dict[str, Any]:
    return {
        "route": {"cluster": cluster, "upgrade_configs": [{"upgrade_type": "websocket"}]},
        "response_headers_to_add": [{"header": {"key": "routed-by", "value": says}}],
    }


def _cluster(name: str, address: str, port: int) -> dict[str, Any]:
    endpoint = {"address": {"socket_address": {"address": address, "port_value": port}}}
    return {
        "name": name,
        "type": "STATIC",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [{"endpoint": endpoint}]}]},
    }


@contextlib.contextmanager
def running(folder: Path, *, policy: Mapping[str, Any] = ALLOW) -> Iterator[Proxy]:
    """Envoy with what krun adds to the agent's bootstrap, and the servers."""
    address = addresses.loopback()
    settings = istio_settings.IstioSettings(
        run_dir=folder,
        loopback=address,
        namespace="demo",
        name="a",
        pod_name="a-1",
        service_account="default",
        cluster_id="Kubernetes",
        mesh_id="mesh",
        trust_domain="cluster.local",
        network="",
        discovery="istiod.istio-system.svc:15012",
        discovery_san="istiod.istio-system.svc",
        audience="istio-ca",
        app_port=8080,
        grpc_port=8080,
        app_protocol="auto",
        is_captured=False,
        tcp_services=(istio_settings.TcpService(port=2525, host="mail.demo.svc.cluster.local", target_port=25),),
    )
    tls = Server((address, 9443), _tls_handler(folder))
    with contextlib.ExitStack() as stack:
        for server in (http.server.ThreadingHTTPServer((address, 8080), App), Server((address, 9025), First), tls):
            stack.enter_context(serving(server))
        override = istio_whitebox.override(settings)
        override["static_resources"]["clusters"] += [
            *(_cluster(f"outbound|{port}||{WEB}", address, 8080) for port in (80, 81, 8080)),
            _cluster("outbound|9000||plain.demo.svc.cluster.local", address, 8080),
            _cluster("outbound|8000||api.example", address, 8080),
            _cluster("outbound|25||mail.demo.svc.cluster.local", address, 9025),
            _cluster("outbound|443||tls.demo.svc.cluster.local", address, 9443),
        ]
        bootstrap = {
            "node": {"id": "a", "cluster": "a"},
            "admin": {"address": {"socket_address": {"address": address, "port_value": 15000}}},
            "bootstrap_extensions": [
                {"name": "envoy.bootstrap.internal_listener", "typed_config": {"@type": INTERNAL}},
            ],
            **override,
        }
        (folder / "envoy.json").write_text(json.dumps(bootstrap))
        argv = [components.envoy(), "--config-path", str(folder / "envoy.json"), "--disable-hot-restart"]
        Proxy(address=address, folder=folder, envoy=None).scopes(policy, *clusters(80, 81))  # type: ignore[arg-type]
        envoy = stack.enter_context(processes.start([*argv, "--concurrency", "1", "--log-level", "warning"]))
        processes.wait_until(lambda: ready(address), what="Envoy is ready")
        yield Proxy(address=address, folder=folder, envoy=envoy)


def _tls_handler(folder: Path) -> type[App]:
    pair = Authority().server(hosts=("tls.demo",))
    (folder / "tls.pem").write_bytes(pair.chain + pair.key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "tls.pem")

    class Tls(App):
        def setup(self) -> None:
            self.request = context.wrap_socket(self.request, server_side=True)
            super().setup()

        def finish(self) -> None:
            super().finish()
            self.request.close()

    return Tls


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    with running(tmp_path_factory.mktemp("proxy")) as made:
        yield made


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """A mesh that allows no hosts outside of it."""
    with running(tmp_path_factory.mktemp("closed"), policy=BLOCK) as made:
        yield made


@pytest.mark.parametrize("host", ["web", "web.demo", "web.demo.svc", WEB, "WEB.Demo", "web:80", f"{WEB}:80"])
@pytest.mark.parametrize("form", ["url", "host"])
def test_every_form_of_a_name_is_led_by_the_routes_of_its_port(proxy: Proxy, host: str, form: str) -> None:
    status, headers, body = proxy.call(f"http://{host}/x?y=1") if form == "url" else proxy.call("/x?y=1", host=host)
    assert (status, headers["routed-by"]) == (200, "80")
    seen = dict(json.loads(body)["headers"])
    assert seen["host"] == host
    assert json.loads(body)["path"] == "/x?y=1"


def test_nothing_of_ours_leaves_and_nothing_of_ours_is_taken(proxy: Proxy) -> None:
    forged = {
        "x_krun_policy": "allow",
        "x_krun_clusters": "nowhere",
        "x_krun_scope": "direct",
        "proxy_authorization": "x",
    }
    for url in ("http://web/", "http://plain:9000/", "http://api.example:8000/"):
        status, _, body = proxy.call(url, **forged)
        assert status == 200
        names = [name for name, _ in json.loads(body)["headers"]]
        assert not [name for name in names if name.startswith(("x-krun", "x-envoy", "proxy-"))]


def test_a_route_without_a_name_stands_and_a_path_without_a_route_is_404(proxy: Proxy) -> None:
    assert proxy.call("http://web:81/unnamed")[1]["routed-by"] == "unnamed"
    assert proxy.call("http://web:81/other")[0] == 404


@pytest.mark.parametrize("url", ["http://plain:9000/", "http://plain.demo:9000/", "http://api.example:8000/"])
def test_a_port_without_routes_of_http_is_led_by_its_cluster(proxy: Proxy, url: str) -> None:
    status, headers, _ = proxy.call(url)
    assert status == 200
    assert "routed-by" not in headers


def test_a_port_that_comes_while_it_runs_has_its_routes_when_the_file_has_it(tmp_path: Path) -> None:
    with running(tmp_path) as proxy:
        assert "routed-by" not in proxy.call("http://web:8080/")[1]
        proxy.scopes(ALLOW, *clusters(80, 81, 8080))
        processes.wait_until(
            lambda: proxy.call("http://web:8080/")[1].get("routed-by") == "8080", what="the port has its routes"
        )


def test_no_request_fails_or_goes_astray_while_the_file_is_replaced(tmp_path: Path) -> None:
    with running(tmp_path) as proxy:
        for number in range(100):
            proxy.scopes(ALLOW, *clusters(80, *range(9100, 9100 + number % 7)))
            status, headers, _ = proxy.call("http://web/")
            assert (status, headers["routed-by"]) == (200, "80")
            assert proxy.call("http://plain:9000/")[0] == 200


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost"])
def test_names_outside_are_called_as_before_on_any_port(proxy: Proxy, name: str) -> None:
    with outside(App) as host:
        authority = host.replace("127.0.0.1", name)
        status, _, body = proxy.call(f"http://{authority}/a//b/../c%2fd?q")
        assert status == 200
        assert json.loads(body)["path"] == "/a//b/../c%2fd?q"
        assert "200 OK" in proxy.through(authority, authority)


def test_a_name_outside_that_there_is_not_is_said(proxy: Proxy) -> None:
    status, _, body = proxy.call("http://no..name:8080/")
    assert status == 503
    assert body.startswith(b"krun: no..name:8080: no answer through PassthroughCluster")


def test_a_mesh_that_allows_no_others_is_closed_to_all_ways(closed: Proxy) -> None:
    with outside(App) as host:
        assert closed.call(f"http://{host}/")[::2] == (
            502,
            f"krun: {host} is nothing that the mesh knows, and it allows no hosts outside of it\n".encode(),
        )
        assert " 502 " in closed.through(host, host)
    assert closed.call("http://other.example/")[0] == 502
    # What the mesh knows is not outside: by its routes, by its cluster, by CONNECT.
    assert closed.call("http://web/")[1]["routed-by"] == "80"
    assert closed.call("http://api.example:8000/")[0] == 200
    assert "200 OK" in closed.through("api.example:8000", "api.example:8000")


def test_a_host_that_the_mesh_leaves_to_dns_is_led_out_of_a_closed_mesh(tmp_path: Path) -> None:
    with running(tmp_path, policy=BLOCK) as closed, outside(App) as host:
        port = int(host.rpartition(":")[2])
        there = f"localhost:{port}"
        assert closed.call(f"http://{there}/")[0] == 502
        closed.scopes(BLOCK, *clusters(80), *clusters(port, host="localhost", kind="ORIGINAL_DST"))
        processes.wait_until(lambda: closed.call(f"http://{there}/")[0] == 200, what="the host is known")
        names = [name for name, _ in json.loads(closed.call(f"http://{there}/")[2])["headers"]]
        assert not [name for name in names if name.startswith("x-krun")]
        assert "200 OK" in closed.through(there, there)
        assert closed.call(f"https://{there}/")[0] in (501, 502)
        assert closed.call(f"http://{host}/")[0] == 502
        assert closed.call("http://web/")[1]["routed-by"] == "80"


def test_an_address_of_ipv6_is_connected_to(proxy: Proxy) -> None:
    class Six(Server):
        address_family = socket.AF_INET6

    server = Six(("::1", 0), App)
    authority = f"[::1]:{server.server_address[1]}"
    with serving(server):
        assert "200 OK" in proxy.through(authority, authority)
        assert proxy.call(f"http://{authority}/")[0] == 200


@pytest.mark.parametrize(
    ("url", "status", "words"),
    [
        ("http://localhost:15000/quitquitquit", 403, "is this proxy, or a port of Envoy's"),
        ("http://127.0.0.9:15020/", 403, "is this proxy"),
        ("http://[::1]:15001/", 403, "is this proxy"),
        ("http://any.example:15007/", 403, "is this proxy"),
        ("http://web:0/", 400, "not HOST or HOST:PORT: 'web:0'"),
        ("http://web:x/", 400, ""),
        ("https://api.example.com/", 501, "api.example.com: https needs CONNECT"),
    ],
)
def test_what_the_proxy_cannot_mean_is_refused(proxy: Proxy, url: str, status: int, words: str) -> None:
    got, _, body = proxy.call(url)
    assert got == status
    assert words in body.decode()


def test_http_within_a_connect_is_led_by_the_routes_too(proxy: Proxy) -> None:
    assert "routed-by: 80" in proxy.through("web:80", "web")
    assert "routed-by: 80" in proxy.through("web.demo:80", "web.demo:80")
    # The port is the one that the CONNECT was for; a host that no route knows goes where it led.
    assert "routed-by: 80" in proxy.through("web:80", "web:8080")
    answer = proxy.through("web:80", "other.example")
    assert "200 OK" in answer
    assert "routed-by" not in answer
    assert "x-krun" not in answer


def test_a_websocket_passes_straight_and_within_a_connect(proxy: Proxy) -> None:
    key = base64.b64encode(bytes(16)).decode()
    upgrade = "Host: web\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    with (
        socket.create_connection((proxy.address, 15007), timeout=WAIT) as straight,
        proxy.connect("web:80") as (within, _),
    ):
        for connection, target in ((straight, "http://web/ws"), (within, "/ws")):
            connection.sendall(f"GET {target} HTTP/1.1\r\n{upgrade}Sec-WebSocket-Key: {key}\r\n\r\n".encode())
            assert b" 101 " in read_until(connection, b"\r\n\r\n")
            connection.sendall(b"\x81\x02hi")
            assert read_until(connection, b"hi") == b"\x81\x02hi"


def test_http2_is_spoken_to_the_proxy_and_within_a_connect(proxy: Proxy) -> None:
    curl = [components.program("curl", package="curl"), "-sS", "--http2-prior-knowledge", "-D", "-"]
    straight = processes.run([*curl, "-H", "host: web", f"http://{proxy.address}:15007/"])
    within = processes.run([*curl, "--proxytunnel", "--proxy", f"http://{proxy.address}:15007", "http://web/"])
    for done in (straight, within):
        assert "HTTP/2 200" in done.stdout, done.stderr
        assert "routed-by: 80" in done.stdout


def test_tls_within_a_connect_to_the_mesh_is_not_touched(proxy: Proxy) -> None:
    context = ssl.create_default_context(cafile=None)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with proxy.connect("tls.demo:443") as (tunnel, _), context.wrap_socket(tunnel, server_hostname="tls.demo") as inner:
        inner.sendall(b"GET /tls HTTP/1.1\r\nHost: tls.demo\r\nConnection: close\r\n\r\n")
        assert b"/tls" in b"".join(iter(lambda: inner.recv(65536), b""))


def test_a_server_may_speak_first_within_a_connect_and_on_a_local_port(proxy: Proxy) -> None:
    with (
        proxy.connect("mail:25") as (within, _),
        socket.create_connection((proxy.address, 2525), timeout=WAIT) as local,
    ):
        for connection in (within, local):
            assert read_until(connection, b"hello\r\n") == b"220 hello\r\n"
            connection.sendall(b"EHLO\r\n")
            assert read_until(connection, b"\n") == b"EHLO\r\n"


def test_more_connections_than_envoys_default_are_open_at_once(proxy: Proxy) -> None:
    hard = limits.getrlimit(limits.RLIMIT_NOFILE)[1]
    limits.setrlimit(limits.RLIMIT_NOFILE, (hard, hard))
    # Nobody accepts: the kernel does, as many as wait.
    with socket.create_server(("127.0.0.1", 0), backlog=2000) as server, contextlib.ExitStack() as stack:
        for authority in (f"127.0.0.1:{server.getsockname()[1]}", "web:80"):
            opened = [
                stack.enter_context(socket.create_connection((proxy.address, 15007), timeout=WAIT)) for _ in range(1030)
            ]
            for tunnel in opened:
                tunnel.sendall(f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode())
            assert {tunnel.recv(4096).partition(b"\r\n")[0] for tunnel in opened} == {b"HTTP/1.1 200 OK"}


def test_what_krun_launch_asks_for_changes_and_names_is_answered(proxy: Proxy) -> None:
    change = admin(proxy.address, istio_scopes.CHANGE)
    assert "cluster_manager.cluster_added: " in change
    assert admin(proxy.address, istio_scopes.NAMES).startswith("{")


def test_envoy_starts_without_a_warning_but_for_the_limit_that_the_agent_sets(proxy: Proxy) -> None:
    proxy.call("http://web/")
    lines = [line for line in proxy.envoy.stderr.splitlines() if "global_downstream_max_connections" not in line]
    assert lines == []
