"""A static workload in a mesh of its own: real Envoy, an application that says what it saw, a gateway back to it."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import http.server
import json
import re
import socket
import socketserver
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h2.config
import h2.connection
import h2.events

from krun_launch import static_envoy
from krun_launch.certificates import Keeper
from krun_testbed import addresses, certificates, components, processes
from krun_testbed.certificates import Authority

TRUST_DOMAIN = "mesh.test"
OURS = f"spiffe://{TRUST_DOMAIN}/ns/demo/sa/default"
THEIRS = f"spiffe://{TRUST_DOMAIN}/ns/web/sa/caller"
WAIT = 10.0


class App(http.server.BaseHTTPRequestHandler):
    """An application that knows nothing of a mesh: says what reached it, as JSON."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.headers.get("upgrade") == "websocket":
            return self._echo()
        self._answer({"path": self.path, "headers": [[name.lower(), value] for name, value in self.headers.items()]})

    def do_POST(self) -> None:
        digest, size = hashlib.sha256(), 0
        for chunk in self._chunks():
            digest.update(chunk)
            size += len(chunk)
        self._answer({"size": size, "sha256": digest.hexdigest()})

    def do_PUT(self) -> None:
        """Answer each piece of the body before the next one comes."""
        self.send_response(200)
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for chunk in self._chunks():
            self.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
        self.wfile.write(b"0\r\n\r\n")

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _answer(self, value: object) -> None:
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _chunks(self) -> Iterator[bytes]:
        if length := int(self.headers.get("content-length", "0")):
            yield self.rfile.read(length)
            return
        while size := int(self.rfile.readline(), 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()

    def _echo(self) -> None:
        self.send_response(101)
        self.send_header("upgrade", "websocket")
        self.send_header("connection", "upgrade")
        self.end_headers()
        self.close_connection = True
        while data := self.connection.recv(65536):
            self.connection.sendall(data)


class Grpc(socketserver.BaseRequestHandler):
    """HTTP/2 without TLS, as a gRPC server speaks it: answers with the request's content type, and trailers."""

    def handle(self) -> None:
        connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="utf-8"))
        connection.initiate_connection()
        self.request.sendall(connection.data_to_send())
        while data := self.request.recv(65536):
            for event in connection.receive_data(data):
                if isinstance(event, h2.events.StreamEnded):
                    connection.send_headers(event.stream_id, [(":status", "200"), ("content-type", "application/grpc")])
                    connection.send_data(event.stream_id, b"hello by h2c")
                    connection.send_headers(event.stream_id, [("grpc-status", "0")], end_stream=True)
            self.request.sendall(connection.data_to_send())


class Server(socketserver.ThreadingTCPServer):
    """A server in threads, which waits for none of them at its end: Envoy keeps connections open."""

    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False

    def shutdown_request(self, request: Any) -> None:
        self.close_request(request)


class Relay(socketserver.BaseRequestHandler):
    """The mesh's gateway: notes what the ClientHello says, and passes the bytes on without a look inside."""

    def handle(self) -> None:
        mesh: Mesh = self.server.mesh  # type: ignore[attr-defined]
        hello = b""
        while len(hello) < 5 or len(hello) < 5 + int.from_bytes(hello[3:5]):
            data = self.request.recv(65536)
            if not data:
                return
            hello += data
        mesh.hellos.append(hello)
        with socket.create_connection((mesh.address, 15003), timeout=WAIT) as other:
            other.settimeout(None)
            other.sendall(hello)
            back = threading.Thread(target=_copy, args=(other, self.request), daemon=True)
            back.start()
            _copy(self.request, other)
            back.join()


def _copy(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


@dataclass(kw_only=True)
class Mesh:
    """One workload with its Envoy, its application, and a gateway that leads back to the same workload."""

    address: str
    run_dir: Path
    authority: Authority
    keeper: Keeper
    hellos: list[bytes] = field(default_factory=list)
    envoy: processes.Running

    @property
    def source(self) -> Path:
        return self.run_dir / "source"

    def server_names(self) -> list[str]:
        return [re.findall(rb"outbound_[a-z0-9._-]+", hello)[0].decode() for hello in self.hellos]

    def call(
        self, url: str, *, method: str = "GET", headers: dict[str, str] | None = None, body: Any = None
    ) -> tuple[int, bytes]:
        """One request through the HTTP proxy, on a connection of its own."""
        with contextlib.closing(http.client.HTTPConnection(self.address, 15007, timeout=WAIT)) as connection:
            connection.request(method, url, headers=headers or {}, body=body)
            answer = connection.getresponse()
            return answer.status, answer.read()

    def seen(self, url: str, **headers: str) -> dict[str, list[str]]:
        """The headers that the application sees, each with all its values."""
        status, body = self.call(url, headers={name.replace("_", "-"): value for name, value in headers.items()})
        assert status == 200, body
        result: dict[str, list[str]] = {}
        for name, value in json.loads(body)["headers"]:
            result.setdefault(name, []).append(value)
        return result

    def client(self, *, pair: certificates.Pair | None, directory: Path) -> ssl.SSLContext:
        """A TLS client that does not look at names; with a certificate or without one."""
        context = ssl.create_default_context(cadata=self.authority.root.decode())
        context.check_hostname = False
        context.set_alpn_protocols(["http/1.1"])
        if pair:
            directory.mkdir(exist_ok=True)
            (directory / "pair.pem").write_bytes(pair.chain + pair.key)
            context.load_cert_chain(directory / "pair.pem")
        return context

    def workload(self, *, spiffe_id: str, authority: Authority | None = None) -> None:
        """Replace the workload's own folder, as whoever renews certificates does."""
        authority = authority or self.authority
        pair = authority.workload(spiffe_id=spiffe_id)
        certificates.write_workload(directory=self.source, pair=pair, root=authority.root)


@contextlib.contextmanager
def serving(server: socketserver.BaseServer) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextlib.contextmanager
def running_mesh(directory: Path, *, app: bool = True, gateway: str | None = "") -> Iterator[Mesh]:
    """Start all of it; ``gateway`` is its name when it has one, and None when it is down."""
    address, authority = addresses.loopback(), Authority()
    pair = authority.workload(spiffe_id=OURS)
    certificates.write_workload(directory=directory / "source", pair=pair, root=authority.root)
    keeper = Keeper(source=directory / "source", target=directory / "certs", trust_domain=TRUST_DOMAIN)
    keeper.install()
    host = "127.0.0.1" if gateway else address
    port = addresses.free_port(address=host)
    write_files(directory, environment(address, f"{gateway or host}:{port}"))
    with contextlib.ExitStack() as stack:
        relay = Server((host, port), Relay) if gateway is not None else None
        if app:
            stack.enter_context(serving(http.server.ThreadingHTTPServer((address, 8080), App)))
            stack.enter_context(serving(Server((address, 8081), Grpc)))
        if relay:
            stack.enter_context(serving(relay))
        envoy = stack.enter_context(started(directory, address))
        mesh = Mesh(address=address, run_dir=directory, authority=authority, keeper=keeper, envoy=envoy)
        if relay:
            relay.mesh = mesh  # type: ignore[attr-defined]
        yield mesh


def environment(address: str, gateway: str) -> dict[str, str]:
    return {
        "KRUN_LOOPBACK": address,
        "KRUN_GATEWAY": gateway,
        "WORKLOAD_NAMESPACE": "demo",
        "WORKLOAD_NAME": "a",
        "TRUST_DOMAIN": TRUST_DOMAIN,
        "KRUN_MESH_NAMESPACES": "web",
        "PORT_grpc": "8081",
    }


def write_files(directory: Path, env: dict[str, str]) -> None:
    for name, content in static_envoy.files(static_envoy.settings(env, run_dir=directory)).items():
        (directory / name).write_text(content)


@contextlib.contextmanager
def started(directory: Path, address: str) -> Iterator[processes.Running]:
    envoy = components.envoy()
    argv = static_envoy.argv(envoy=envoy, run_dir=directory, log_level="warning", drain_seconds=4)
    # One worker: two connections from the same place are then sure to meet in one connection pool.
    with processes.start([*argv, "--concurrency", "1"]) as running:
        processes.wait_until(lambda: ready(address), what="Envoy is ready")
        yield running


def ready(address: str) -> bool:
    try:
        return admin(address, "/ready").startswith("LIVE")
    except OSError:
        return False


def admin(address: str, path: str) -> str:
    with contextlib.closing(http.client.HTTPConnection(address, 15000, timeout=WAIT)) as connection:
        connection.request("GET", path)
        return connection.getresponse().read().decode()


def ask(connection: http.client.HTTPConnection) -> bytes:
    connection.request("GET", "/")
    return connection.getresponse().read()


@contextlib.contextmanager
def outside(handler: type[socketserver.BaseRequestHandler]) -> Iterator[str]:
    """A server outside of the mesh; its HOST:PORT."""
    server = Server(("127.0.0.1", 0), handler)
    with serving(server):
        yield f"127.0.0.1:{server.server_address[1]}"


@contextlib.contextmanager
def connect(mesh: Mesh, authority: str) -> Iterator[tuple[socket.socket, bytes]]:
    """A CONNECT tunnel, and the status line of its answer."""
    with socket.create_connection((mesh.address, 15007), timeout=WAIT) as tunnel:
        tunnel.sendall(f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode())
        yield tunnel, read_until(tunnel, b"\r\n\r\n").split(b"\r\n")[0]


def read_until(connection: socket.socket, mark: bytes) -> bytes:
    text = b""
    while mark not in text:
        data = connection.recv(1)
        assert data, text
        text += data
    return text
