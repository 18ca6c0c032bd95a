"""Static mode with a real Envoy: what its bootstrap promises, driven from outside through sockets."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import http.server
import json
import re
import socket
import socketserver
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h2.config
import h2.connection
import h2.events
import pytest

from krun_testbed import certificates, processes
from krun_testbed.certificates import Authority
from krun_testbed.static_mesh import (
    OURS,
    THEIRS,
    WAIT,
    App,
    Mesh,
    Server,
    admin,
    ask,
    connect,
    outside,
    read_until,
    running_mesh,
    serving,
)

pytestmark = pytest.mark.loopback


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    """One workload for all tests of the module that change nothing about it."""
    with running_mesh(tmp_path_factory.mktemp("mesh")) as mesh:
        yield mesh


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("http://b/x?y=1", "outbound_.80_._.b.demo.svc.cluster.local"),
        ("http://b.demo:8080/x?y=1", "outbound_.8080_._.b.demo.svc.cluster.local"),
        ("http://c.web.svc/x?y=1", "outbound_.80_._.c.web.svc.cluster.local"),
        ("http://C.web.svc.cluster.local:81/x?y=1", "outbound_.81_._.c.web.svc.cluster.local"),
    ],
)
def test_a_mesh_name_is_called_by_mtls_with_its_server_name(mesh: Mesh, url: str, name: str) -> None:
    status, body = mesh.call(url)
    assert status == 200, body
    assert name in mesh.server_names()
    answer = json.loads(body)
    headers = dict(answer["headers"])
    assert answer["path"] == "/x?y=1"
    assert headers["host"] == url.split("/")[2]
    assert f"By={OURS};" in headers["x-forwarded-client-cert"]
    assert f"URI={OURS}" in headers["x-forwarded-client-cert"]


def test_a_request_in_relative_form_goes_by_its_host(mesh: Mesh) -> None:
    status, body = mesh.call("/relative", headers={"Host": "relative.demo:7070"})
    assert status == 200
    assert json.loads(body)["path"] == "/relative"
    assert "outbound_.7070_._.relative.demo.svc.cluster.local" in mesh.server_names()


def test_what_tls_offers_is_what_a_sidecar_offers(mesh: Mesh) -> None:
    mesh.call("http://alpn/")
    hello = next(hello for hello in mesh.hellos if b"_.alpn.demo." in hello)
    assert b"\x08istio-h2\x05istio\x02h2\x08http/1.1" in hello


def test_two_calls_of_a_name_share_a_connection_and_two_names_do_not(mesh: Mesh) -> None:
    for name in ("pool-a", "pool-b", "pool-a", "pool-b"):
        assert mesh.call(f"http://{name}/")[0] == 200
    assert len([name for name in mesh.server_names() if "pool-" in name]) == 2


def test_headers_that_claim_an_identity_do_not_reach_the_application(mesh: Mesh, tmp_path: Path) -> None:
    forged = {
        "x-forwarded-client-cert": "By=spiffe://mesh.test/ns/x/sa/y;URI=spiffe://mesh.test/ns/root/sa/root",
        "x-envoy-internal": "true",
        "x-envoy-retry-on": "5xx",
        "x-envoy-peer-metadata": "abc",
        "X-Envoy-External-Address": "10.1.1.1",
        "x-krun-sni": "outbound_.80_._.forged.demo.svc.cluster.local",
    }
    pair = mesh.authority.workload(spiffe_id=THEIRS)
    context = mesh.client(pair=pair, directory=tmp_path)
    connection = http.client.HTTPSConnection(mesh.address, 15003, timeout=WAIT, context=context)
    with contextlib.closing(connection):
        connection.request("GET", "/", headers={**forged, "x-forwarded-for": "10.1.2.3", "x-request-id": "id-1"})
        answer = connection.getresponse()
        headers = json.loads(answer.read())["headers"]
    certificate = [value for name, value in headers if name == "x-forwarded-client-cert"]
    assert len(certificate) == 1
    assert certificate[0].startswith(f"By={OURS};")
    assert certificate[0].endswith(f'Subject="";URI={THEIRS}')
    assert not [name for name, _ in headers if name.startswith(("x-envoy-", "x-krun-"))]
    assert ["x-forwarded-for", "10.1.2.3"] in headers
    assert ["x-request-id", "id-1"] in headers
    assert not [name for name, _ in answer.headers.items() if name.startswith("x-envoy")]
    assert "BaseHTTP" in answer.headers["server"]


UNWANTED = ("x-krun", "x-envoy", "proxy-", "keep-alive", "connection", "x-hop")


def test_an_applications_own_forgeries_do_not_leave(mesh: Mesh) -> None:
    with outside(App) as host:
        for url in (f"http://{host}/", "http://b/"):
            headers = mesh.seen(
                url,
                x_krun_sni="outbound_.80_._.forged.demo.svc.cluster.local",
                x_envoy_upstream_rq_timeout_ms="1",
                x_forwarded_client_cert=f"URI={THEIRS}",
                proxy_authorization="Basic eDp5",
                proxy_connection="keep-alive",
                keep_alive="5",
                connection="x-hop",
                x_hop="1",
            )
            assert not [name for name in headers if name.startswith(UNWANTED)]
            assert THEIRS not in str(headers)
    assert not [name for name in mesh.server_names() if "forged" in name]


@pytest.mark.parametrize("case", ["no certificate", "another trust domain", "another authority", "no identity"])
def test_a_client_that_is_not_of_the_mesh_is_refused(mesh: Mesh, tmp_path: Path, case: str) -> None:
    pairs = {
        "no certificate": None,
        "another trust domain": mesh.authority.workload(spiffe_id="spiffe://mesh.test.evil/ns/demo/sa/default"),
        "another authority": Authority().workload(spiffe_id=THEIRS),
        "no identity": mesh.authority.server(hosts=("mesh.test",)),
    }
    context = mesh.client(pair=pairs[case], directory=tmp_path)
    connection = http.client.HTTPSConnection(mesh.address, 15003, timeout=WAIT, context=context)
    # With TLS 1.3 the client's side of the handshake ends before it is refused: the first answer never comes.
    with contextlib.closing(connection), pytest.raises((ssl.SSLError, ConnectionError)):
        ask(connection)


def test_tls_below_1_2_and_plain_text_are_refused(mesh: Mesh, tmp_path: Path) -> None:
    context = mesh.client(pair=mesh.authority.workload(spiffe_id=THEIRS), directory=tmp_path)
    context.set_ciphers("DEFAULT@SECLEVEL=0")
    with pytest.deprecated_call():
        context.minimum_version = ssl.TLSVersion.TLSv1
    with pytest.deprecated_call():
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    with (
        socket.create_connection((mesh.address, 15003), timeout=WAIT) as raw,
        pytest.raises(ssl.SSLError, match="ALERT_PROTOCOL_VERSION"),
        context.wrap_socket(raw),
    ):
        pass
    plain = http.client.HTTPConnection(mesh.address, 15003, timeout=WAIT)
    with contextlib.closing(plain), pytest.raises((http.client.HTTPException, ConnectionError)):
        ask(plain)


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost", "LocalHost"])
def test_a_name_outside_is_called_as_it_is(mesh: Mesh, name: str) -> None:
    before = len(mesh.hellos)
    with outside(App) as host:
        authority = host.replace("127.0.0.1", name)
        status, body = mesh.call(f"http://{authority}/a//b/../c%2fd?q", headers={"x-own": "1"})
    assert status == 200
    answer = json.loads(body)
    assert answer["path"] == "/a//b/../c%2fd?q"
    assert ["host", authority] in [[name, value] for name, value in answer["headers"]]
    assert ["x-own", "1"] in answer["headers"]
    assert len(mesh.hellos) == before


def test_https_outside_without_connect_is_refused_and_not_sent_as_plain_text(mesh: Mesh) -> None:
    with outside(App) as host:
        assert mesh.call(f"https://{host}/") == (501, f"krun: {host}: https needs CONNECT\n".encode())
        assert mesh.call(f"http://{host}/")[0] == 200


def test_upgrades_other_than_websocket_are_refused_and_h2c_is_left_out(mesh: Mesh) -> None:
    assert mesh.call("http://b/", headers={"Connection": "upgrade", "Upgrade": "tcp"})[0] == 403
    settings = {"Connection": "upgrade, http2-settings", "Upgrade": "h2c", "HTTP2-Settings": "AAMAAABkAAQCAAAAAAIAAAAA"}
    assert mesh.call("http://b/", headers=settings)[0] == 200


class Echo(socketserver.BaseRequestHandler):
    """Speaks first, echoes bytes that no proxy understands, and ends when it is told to."""

    def handle(self) -> None:
        self.request.sendall(b"\x00ready")
        data = b""
        while data != b"bye":
            data = self.request.recv(65536)
            self.request.sendall(data)
        self.request.sendall(b"end")


def test_connect_leads_outside(mesh: Mesh) -> None:
    with outside(Echo) as host, connect(mesh, host) as (tunnel, status):
        assert status == b"HTTP/1.1 200 OK"
        assert read_until(tunnel, b"ready") == b"\x00ready"
        tunnel.sendall(b"\xff\x00binary")
        assert read_until(tunnel, b"binary") == b"\xff\x00binary"
        tunnel.sendall(b"bye")
        assert b"".join(iter(lambda: tunnel.recv(64), b"")) == b"byeend"


def test_connect_to_a_mesh_name_is_mtls_too(mesh: Mesh) -> None:
    with connect(mesh, "tunnel.demo:8080") as (tunnel, status):
        assert status == b"HTTP/1.1 200 OK"
        tunnel.sendall(b"GET /in-tunnel HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answer = b"".join(iter(lambda: tunnel.recv(65536), b""))
    assert b"/in-tunnel" in answer
    assert f"URI={OURS}".encode() in answer
    assert "outbound_.8080_._.tunnel.demo.svc.cluster.local" in mesh.server_names()


def grpc(connection: socket.socket, *, authority: str) -> tuple[bytes, dict[str, str]]:
    """One gRPC-like request over HTTP/2 without TLS: the body, and all headers with trailers."""
    protocol = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
    protocol.initiate_connection()
    headers = [(":method", "POST"), (":scheme", "http"), (":authority", authority), (":path", "/s/m")]
    protocol.send_headers(1, [*headers, ("content-type", "application/grpc+proto"), ("te", "trailers")])
    protocol.send_data(1, b"hello", end_stream=True)
    body = b""
    seen: dict[Any, Any] = {}
    while True:
        connection.sendall(protocol.data_to_send())
        for event in protocol.receive_data(connection.recv(65536)):
            if isinstance(event, h2.events.ResponseReceived | h2.events.TrailersReceived):
                seen.update(dict(event.headers))
            elif isinstance(event, h2.events.DataReceived):
                body += event.data
            elif isinstance(event, h2.events.StreamEnded):
                return body, seen


def test_grpc_reaches_the_application_by_http2(mesh: Mesh) -> None:
    with socket.create_connection((mesh.address, 15007), timeout=WAIT) as connection:
        body, headers = grpc(connection, authority="grpc.demo:8081")
    assert body == b"hello by h2c"
    assert headers[":status"] == "200"
    assert headers["grpc-status"] == "0"


def test_grpc_through_connect_reaches_the_application_by_http2(mesh: Mesh) -> None:
    """What gRPC libraries do with HTTP_PROXY."""
    with connect(mesh, "grpc:8081") as (tunnel, _):
        assert grpc(tunnel, authority="grpc:8081")[0] == b"hello by h2c"


@pytest.mark.parametrize("where", ["mesh", "outside"])
def test_a_websocket_passes(mesh: Mesh, where: str) -> None:
    with outside(App) as host, socket.create_connection((mesh.address, 15007), timeout=WAIT) as connection:
        authority = "socket.demo" if where == "mesh" else host
        key = base64.b64encode(bytes(16)).decode()
        connection.sendall(
            f"GET http://{authority}/ws HTTP/1.1\r\nHost: {authority}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode()
        )
        assert b" 101 " in read_until(connection, b"\r\n\r\n")
        connection.sendall(b"\x81\x02hi")
        assert read_until(connection, b"hi") == b"\x81\x02hi"


def test_a_large_body_passes_whole(mesh: Mesh) -> None:
    block = bytes(range(256)) * 256
    status, answer = mesh.call("http://b/", method="POST", body=iter([block] * 256))
    assert status == 200
    assert json.loads(answer) == {"size": len(block) * 256, "sha256": hashlib.sha256(block * 256).hexdigest()}


def test_a_body_streams_both_ways_at_once(mesh: Mesh) -> None:
    with socket.create_connection((mesh.address, 15007), timeout=WAIT) as connection:
        connection.sendall(b"PUT http://b/ HTTP/1.1\r\nHost: b\r\nTransfer-Encoding: chunked\r\n\r\n")
        for piece in (b"one", b"two"):
            connection.sendall(b"3\r\n%s\r\n" % piece)
            # The answer to this piece comes before the next one is sent.
            assert piece in read_until(connection, piece)
        connection.sendall(b"0\r\n\r\n")
        read_until(connection, b"0\r\n\r\n")


def test_envoy_starts_without_a_warning_and_counts_requests_under_way(mesh: Mesh) -> None:
    assert mesh.call("http://b/")[0] == 200
    assert mesh.envoy.stderr == ""
    idle = "http.inbound.downstream_rq_active: 0"
    processes.wait_until(lambda: idle in admin(mesh.address, "/stats?filter=inbound.downstream"), what="none under way")


def test_a_gateway_that_is_down_is_said_with_503(tmp_path: Path) -> None:
    with running_mesh(tmp_path, gateway=None) as mesh:
        status, text = mesh.call("http://b:8080/")
        assert status == 503
        assert re.match(rb"krun: b:8080: no answer through gateway 127[0-9.]+:\d+: .*connection failure", text)
        with connect(mesh, "b:8080") as (_, line):
            assert b" 503 " in line


def test_a_gateway_may_have_a_name(tmp_path: Path) -> None:
    with running_mesh(tmp_path, gateway="localhost") as mesh:
        processes.wait_until(lambda: mesh.call("http://b/")[0] == 200, what="the gateway's name is resolved")
        assert mesh.envoy.stderr == ""


def test_a_name_outside_that_does_not_resolve_is_said_with_503(mesh: Mesh) -> None:
    # A name that the resolver refuses by its form: nobody is asked.
    status, text = mesh.call("http://no..name/")
    assert status == 503
    assert text.startswith(b"krun: no..name: no answer through outside : DNS resolution failure")


def test_an_application_that_is_down_is_said_with_503(tmp_path: Path) -> None:
    with running_mesh(tmp_path, app=False) as mesh:
        status, text = mesh.call("http://b/")
    assert status == 503
    assert text.startswith(b"krun: the application does not answer: ")


def test_a_gateway_that_leads_to_another_trust_domain_is_not_spoken_to(tmp_path: Path) -> None:
    with running_mesh(tmp_path, gateway=None) as mesh, foreign_gateway(mesh, tmp_path / "foreign"):
        status, text = mesh.call("http://b/")
    assert status == 503
    assert b"CERTIFICATE_VERIFY_FAILED" in text


@contextlib.contextmanager
def foreign_gateway(mesh: Mesh, directory: Path) -> Iterator[None]:
    """A TLS server at the gateway's address: right authority, wrong trust domain."""
    pair = mesh.authority.workload(spiffe_id="spiffe://other.test/ns/demo/sa/default")
    certificates.write_workload(directory=directory, pair=pair, root=mesh.authority.root)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / "certificates.pem", directory / "private_key.pem")
    bootstrap = json.loads((mesh.run_dir / "envoy.json").read_text())
    cluster = next(item for item in bootstrap["static_resources"]["clusters"] if item["name"] == "gateway")
    endpoint = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]
    port = endpoint["address"]["socket_address"]["port_value"]

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with contextlib.suppress(OSError), context.wrap_socket(self.request, server_side=True) as tls:
                tls.recv(1)

    with serving(Server((mesh.address, port), Handler)):
        yield
