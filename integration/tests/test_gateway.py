"""hgate as a process: TLS clients on one side, real hboned and a real TLS server on the other."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import h2.config
import h2.connection
import h2.events
import pytest

from krun_testbed import processes
from krun_testbed.certificates import Authority, write
from krun_testbed.processes import Running

pytestmark = pytest.mark.loopback

SNI = "outbound_.8080_._.b.demo.svc.cluster.local"
RANDOM = os.urandom(10 * 1024 * 1024)
DIGEST = hashlib.sha256(RANDOM).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Workload:
    """A TLS server that answers by the digest of what it reads to the end, and the root that signs it."""

    context: ssl.SSLContext  # of its clients
    names: list[str]  # server names that it was asked for


@contextlib.contextmanager
def listening(address: str, port: int, handler: Callable[[socket.socket], None]) -> Iterator[None]:
    threads: list[threading.Thread] = []

    def handle(connected: socket.socket) -> None:
        with connected, contextlib.suppress(OSError):
            handler(connected)

    def accept() -> None:
        while True:
            try:
                connected, _ = listener.accept()
            except OSError:
                return
            connected.settimeout(processes.WAIT)
            threads.append(threading.Thread(target=handle, args=(connected,), daemon=True))
            threads[-1].start()

    with socket.create_server((address, port), backlog=512) as listener:
        acceptor = threading.Thread(target=accept, daemon=True)
        acceptor.start()
        yield
        listener.shutdown(socket.SHUT_RDWR)
        acceptor.join(processes.WAIT)
    for thread in threads:
        thread.join(processes.WAIT)
        assert not thread.is_alive(), "a connection was never closed"


@contextlib.contextmanager
def workload(address: str, authority: Authority, folder: Path) -> Iterator[Workload]:
    """The TLS server at 15003, where a workload's Envoy would be, with hboned before it."""
    pair = authority.server(hosts=("b.demo.svc.cluster.local",))
    write(path=folder / "b.pem", content=pair.chain + pair.key)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(folder / "b.pem")
    names: list[str] = []
    context.sni_callback = lambda _, name, __: names.append(name)
    client = ssl.create_default_context(cadata=authority.root.decode())
    client.check_hostname = False  # Istio's clients check the SPIFFE id, and never the SNI

    def echo(connected: socket.socket) -> None:
        with context.wrap_socket(connected, server_side=True) as secure:
            while data := secure.recv(65536):
                secure.sendall(data)

    env = processes.environment(KRUN_LOOPBACK=address)
    with listening(address, 15003, echo), processes.start(["hboned"], env=env) as hboned:
        hboned.wait_for("ready")
        yield Workload(context=client, names=names)


@contextlib.contextmanager
def gate(address: str, *flags: str, route: str = "", **variables: str) -> Iterator[Running]:
    routes = route or f"b.demo=http://{address}:15009"
    env = processes.environment(KRUN_ROUTES=routes, KRUN_LOG_FORMAT="json", **variables)
    with processes.start(["hgate", "--listen", f"{address}:15442", *flags], env=env) as running:
        running.wait_for('"ready"')
        yield running


def lines(running: Running, message: str) -> list[dict[str, object]]:
    entries = [json.loads(line) for line in running.stderr.splitlines()]
    return [entry for entry in entries if entry["message"] == message]


def the_line(running: Running, message: str) -> dict[str, object]:
    running.wait_for(f'"{message}"')
    (line,) = lines(running, message)
    return line


def connect(address: str, port: int = 15442) -> socket.socket:
    return socket.create_connection((address, port), timeout=processes.WAIT)


def tls(context: ssl.SSLContext, connected: socket.socket, *, sni: str = SNI) -> ssl.SSLSocket:
    return context.wrap_socket(connected, server_hostname=sni)


def read_all(connected: socket.socket) -> bytes:
    return b"".join(iter(lambda: connected.recv(65536), b""))


def in_pieces(context: ssl.SSLContext, connected: socket.socket, *, size: int) -> bytes:
    """Shake hands with the hello sent in pieces, then have ``hello`` echoed."""
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(incoming, outgoing, server_hostname=SNI)
    is_first = True
    while True:
        try:
            client.do_handshake()
            break
        except ssl.SSLWantReadError:
            data = outgoing.read()
            step = size if is_first else len(data) or 1
            for start in range(0, len(data), step):
                connected.sendall(data[start : start + step])
            is_first = False
            incoming.write(connected.recv(65536))
    client.write(b"hello")
    connected.sendall(outgoing.read())
    while True:
        try:
            return client.read(5)
        except ssl.SSLWantReadError:
            incoming.write(connected.recv(65536))


def closed(connected: socket.socket) -> bool:
    """Wait for the other side to close, in order or not; true when it said nothing before."""
    try:
        return connected.recv(1) == b""
    except ConnectionResetError:
        return True


def test_tls_goes_through_unopened_and_names_the_service(address: str, authority: Authority, tmp_path: Path) -> None:
    with workload(address, authority, tmp_path) as b, gate(address) as hgate:
        with tls(b.context, connect(address)) as client:
            client.sendall(b"hello")
            assert client.recv(5) == b"hello"
            certificate = client.getpeercert()
            assert certificate is not None
            assert ("DNS", "b.demo.svc.cluster.local") in certificate["subjectAltName"]
        assert b.names == [SNI]
        line = the_line(hgate, "connection closed")
        assert (line["sni"], line["url"]) == (SNI, f"http://{address}:15009/_hbone/15003")
        assert line["reason"] == "ended"


def test_ten_megabytes_both_ways(address: str, authority: Authority, tmp_path: Path) -> None:
    with workload(address, authority, tmp_path) as b, gate(address):
        with tls(b.context, connect(address)) as client:
            got = hashlib.sha256()

            def read() -> None:
                left = len(RANDOM)
                while left:
                    data = client.recv(65536)
                    got.update(data)
                    left -= len(data)

            sender = threading.Thread(target=lambda: client.sendall(RANDOM))
            sender.start()
            read()
            sender.join(processes.WAIT)
        assert got.hexdigest() == DIGEST


@pytest.mark.parametrize("size", [1, 5, 300])
def test_hello_in_pieces_is_put_together(address: str, authority: Authority, tmp_path: Path, size: int) -> None:
    with workload(address, authority, tmp_path) as b, gate(address), connect(address) as client:
        assert in_pieces(b.context, client, size=size) == b"hello"


def test_plain_name_and_route_by_port(address: str, authority: Authority, tmp_path: Path) -> None:
    route = f"b.demo:9090=http://{address}:15009/_hbone/404 b.demo.svc=http://{address}:15009"
    with workload(address, authority, tmp_path) as b, gate(address, route=route) as hgate:
        with tls(b.context, connect(address), sni="b.demo.svc.cluster.local") as client:
            client.sendall(b"hello")
            assert client.recv(5) == b"hello"
        with connect(address) as plain, pytest.raises((ssl.SSLError, ConnectionResetError)):
            tls(b.context, plain, sni="outbound_.9090_._.b.demo.svc.cluster.local")
        line = the_line(hgate, "connection failed")
        assert line["status"] == 404
        assert line["url"] == f"http://{address}:15009/_hbone/404"
        assert "hint: " in str(line["reason"])


@pytest.mark.parametrize(
    ("sni", "reason"),
    [
        ("outbound_.8080_._.c.demo.svc.cluster.local", "no route"),
        ("b.other.svc.cluster.local", "no route"),
        ("www.example", "not the name of a service"),
        ("", "no server name"),
    ],
)
def test_unknown_name_is_closed_with_one_line(address: str, authority: Authority, sni: str, reason: str) -> None:
    context = ssl.create_default_context(cadata=authority.root.decode())
    context.check_hostname = False
    with gate(address) as hgate:
        with connect(address) as plain, pytest.raises((ssl.SSLError, ConnectionResetError)):
            context.wrap_socket(plain, server_hostname=sni or None)
        line = the_line(hgate, "connection refused")
        assert (line["sni"], line["reason"]) == (sni, reason)


@pytest.mark.parametrize("data", [b"GET / HTTP/1.1\r\n\r\n", b"\x00", b"\x16\x03\x01\xff\xff"])
def test_what_is_no_tls_is_closed_with_one_line(address: str, data: bytes) -> None:
    with gate(address) as hgate:
        with connect(address) as client:
            client.sendall(data)
            assert closed(client)
        assert the_line(hgate, "connection refused")["sni"] == ""


def test_hello_that_is_too_big_is_closed_with_one_line(address: str) -> None:
    with gate(address) as hgate:
        with connect(address) as client:
            client.sendall(b"\x16\x03\x01\x00\x04\x01\x00\x40\x01")
            assert closed(client)
        assert "16384" in str(the_line(hgate, "connection refused")["reason"])


@pytest.mark.parametrize("said", [b"", b"\x16\x03\x01\x02\x00\x01"])
def test_client_that_does_not_finish_its_hello_is_cut_off_in_time(address: str, said: bytes) -> None:
    with gate(address, "--hello-timeout", "0.3") as hgate:
        with connect(address) as client:
            client.sendall(said)
            assert closed(client)
        assert "within 0.3 s" in str(the_line(hgate, "connection refused")["reason"])


def test_nobody_behind_the_url_is_one_line_with_a_hint(address: str, authority: Authority) -> None:
    context = ssl.create_default_context(cadata=authority.root.decode())
    context.check_hostname = False
    with gate(address) as hgate:
        with connect(address) as plain, pytest.raises((ssl.SSLError, ConnectionResetError)):
            tls(context, plain)
        reason = str(the_line(hgate, "connection failed")["reason"])
        assert f"{address}:15009: Connection refused" in reason
        assert "hint: " in reason


def test_token_goes_in_the_header_of_serverless_fronts_and_into_no_log(address: str, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("canary.of.mine")
    seen: list[dict[str, str]] = []

    def forbid(connected: socket.socket) -> None:
        connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        connection.initiate_connection()
        connected.sendall(connection.data_to_send())
        while data := connected.recv(65536):
            for event in connection.receive_data(data):
                if isinstance(event, h2.events.RequestReceived):
                    seen.append({name.decode(): value.decode() for name, value in event.headers or ()})
                    connection.send_headers(event.stream_id or 0, [(":status", "403")], end_stream=True)
            connected.sendall(connection.data_to_send())

    context = ssl.create_default_context()
    variables = {"KRUN_ID_TOKEN_FILE": str(tmp_path / "token"), "KRUN_LOG_LEVEL": "debug"}
    with listening(address, 15009, forbid), gate(address, **variables) as hgate:
        with connect(address) as plain, pytest.raises((ssl.SSLError, ConnectionResetError)):
            tls(context, plain)
        line = the_line(hgate, "connection failed")
    assert line["status"] == 403
    assert "audience" in str(line["reason"])
    assert seen[0]["x-serverless-authorization"] == "Bearer canary.of.mine"
    assert "authorization" not in seen[0]
    assert "canary" not in hgate.said()


def test_50_connections_share_one_connection_to_the_server(address: str, authority: Authority, tmp_path: Path) -> None:
    with workload(address, authority, tmp_path) as b, gate(address), contextlib.ExitStack() as stack:
        clients = [stack.enter_context(tls(b.context, connect(address))) for _ in range(50)]
        for number, client in enumerate(clients):
            client.sendall(b"%05d" % number)
        for number, client in enumerate(clients):
            assert client.recv(5) == b"%05d" % number
        remote = f"{int.from_bytes(socket.inet_aton(address), 'little'):08X}:{15009:04X}"
        rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        assert len([row for row in rows if row[2] == remote and row[3] == "01"]) == 1


def test_sigterm_drains_and_open_connections_go_on(address: str, authority: Authority, tmp_path: Path) -> None:
    with workload(address, authority, tmp_path) as b, gate(address) as hgate:
        with tls(b.context, connect(address)) as client:
            hgate.signal(signal.SIGTERM)
            processes.wait_until(lambda: not processes.listens(address, 15442), what="the port is closed")
            client.sendall(b"hello")
            assert client.recv(5) == b"hello"
        assert hgate.wait() == 0
        assert json.loads(hgate.stderr.splitlines()[-1])["message"] == "drained"


def test_second_sigterm_ends_open_connections_at_once(address: str, authority: Authority, tmp_path: Path) -> None:
    with workload(address, authority, tmp_path) as b, gate(address) as hgate, connect(address) as plain:
        client = tls(b.context, plain)
        hgate.signal(signal.SIGTERM)
        processes.wait_until(lambda: not processes.listens(address, 15442), what="the port is closed")
        hgate.signal(signal.SIGTERM)
        assert hgate.wait(timeout=5) == 0
        # Read below TLS: Python takes a reset for an end there.
        with client, socket.socket(fileno=os.dup(client.fileno())) as raw, pytest.raises(ConnectionResetError):
            read_all(raw)
        assert the_line(hgate, "connection closed")["reason"] == "ended at once, by a signal"


@pytest.mark.parametrize(
    ("flags", "variables", "status", "named"),
    [
        ([], {}, 78, "KRUN_ROUTES"),
        ([], {"KRUN_ROUTES": "b=https://b.example"}, 78, "'b'"),
        (["--route", "*.demo=https://b.example"], {}, 2, "*.demo"),
        (["--route", "b.demo=nonsense"], {}, 2, "nonsense"),
        (["--route", "b.demo=https://b.example", "--listen", "nowhere:1"], {}, 2, "nowhere"),
        (["--route", "b.demo=https://b.example", "--connect-to", "b"], {}, 2, "--connect-to"),
        (["--route", "b.demo=https://b.example", "--ca-file", "none.pem"], {}, 78, "none.pem"),
        (["--route", "b.demo=http://192.0.2.1", "--token-file", "t"], {}, 78, "192.0.2.1"),
        (["--route", "b.demo=https://b.example", "--token-file", "t", "--token-command", "c"], {}, 78, "token"),
        (["--route", "b.demo=https://b.example", "--listen", "192.0.2.1:1"], {}, 78, "192.0.2.1:1"),
    ],
)
def test_bad_settings_are_named(flags: list[str], variables: dict[str, str], status: int, named: str) -> None:
    done = processes.run(["hgate", *flags], env=processes.environment(**variables))
    assert (done.returncode, done.stdout) == (status, "")
    assert named in done.stderr
    assert "hint: " in done.stderr
    assert "Traceback" not in done.stderr


def test_port_that_is_taken_is_named(address: str) -> None:
    with socket.create_server((address, 15442)):
        env = processes.environment(KRUN_ROUTES="b.demo=https://b.example")
        done = processes.run(["hgate", "--listen", f"{address}:15442"], env=env)
    assert done.returncode == 78
    assert f"{address}:15442: Address already in use" in done.stderr
