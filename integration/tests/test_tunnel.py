"""hboned and hbone as processes: the tunnel over h2c and TLS, its ends, and its refusals."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import h2.config
import h2.connection
import h2.errors
import h2.events
import pytest

from krun_testbed import addresses, components, processes
from krun_testbed.certificates import Authority, write
from krun_testbed.processes import Running

pytestmark = pytest.mark.loopback

MEGABYTES = 10
RANDOM = os.urandom(MEGABYTES * 1024 * 1024)
DIGEST = hashlib.sha256(RANDOM).hexdigest()

Handler = Callable[[socket.socket], None]


@contextlib.contextmanager
def target(address: str, handler: Handler, *, port: int = 15003) -> Iterator[int]:
    """A TCP server: one thread for each connection, which is closed when its handler returns."""
    threads: list[threading.Thread] = []

    def handle(connected: socket.socket) -> None:
        with connected, contextlib.suppress(ConnectionError):
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
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        acceptor.join(processes.WAIT)
    for thread in threads:
        thread.join(processes.WAIT)
        assert not thread.is_alive(), "a target's connection was never closed"


def read_all(connected: socket.socket) -> bytes:
    return b"".join(iter(lambda: connected.recv(65536), b""))


def echo(connected: socket.socket) -> None:
    while data := connected.recv(65536):
        connected.sendall(data)


def greet(connected: socket.socket) -> None:
    connected.sendall(b"hello\n")


def digest_after_end(connected: socket.socket) -> None:
    """Answers only when the caller has ended: its digest, then as many bytes back."""
    data = read_all(connected)
    connected.sendall(hashlib.sha256(data).hexdigest().encode() + data)


@contextlib.contextmanager
def server(address: str, *flags: str, port: int = 15009, **variables: str) -> Iterator[Running]:
    env = processes.environment(KRUN_LOOPBACK=address, KRUN_LOG_FORMAT="json", **variables)
    with processes.start(["hboned", "--port", str(port), *flags], env=env) as running:
        running.wait_for('"ready"')
        yield running


@contextlib.contextmanager
def forward(address: str, url: str, *flags: str) -> Iterator[tuple[Running, int]]:
    argv = ["hbone", "-L", f"{address}:0", *flags, url]
    with processes.start(argv, env=processes.environment(KRUN_LOG_FORMAT="json")) as running:
        port = int(running.wait_for(r'"ready".*"address": "[^"]*:(\d+)"')[1])
        yield running, port


def lines(running: Running, message: str) -> list[dict[str, object]]:
    entries = [json.loads(line) for line in running.stderr.splitlines()]
    return [entry for entry in entries if entry["message"] == message]


def pipe(*argv: str, data: bytes = b"", variables: dict[str, str] | None = None) -> subprocess.CompletedProcess[bytes]:
    """Run hbone over stdin and stdout, in bytes."""
    env = processes.environment(**(variables or {}))
    return subprocess.run(["hbone", *argv], input=data, capture_output=True, env=env, timeout=60, check=False)


def connect(address: str, port: int) -> socket.socket:
    return socket.create_connection((address, port), timeout=processes.WAIT)


def url(address: str, name: str = "15003") -> str:
    return f"http://{address}:15009/_hbone/{name}"


# The tunnel


def test_stdin_and_stdout_over_h2c(address: str) -> None:
    with target(address, digest_after_end), server(address) as hboned:
        done = pipe(url(address), data=b"hello")
        assert done.stdout == hashlib.sha256(b"hello").hexdigest().encode() + b"hello"
        assert (done.returncode, done.stderr) == (0, b"")
        hboned.wait_for("tunnel closed")
        (line,) = lines(hboned, "tunnel closed")
        assert line["target"] == f"{address}:15003"
        assert (line["sent"], line["received"], line["reason"]) == (5, 69, "ended")


def test_ten_megabytes_both_ways_over_h2c(address: str) -> None:
    with target(address, digest_after_end), server(address):
        done = pipe(url(address), data=RANDOM)
        assert done.stdout[:64].decode() == DIGEST
        assert hashlib.sha256(done.stdout[64:]).hexdigest() == DIGEST


def test_ten_megabytes_both_ways_at_the_same_time(address: str) -> None:
    with target(address, echo), server(address):
        assert hashlib.sha256(pipe(url(address), data=RANDOM).stdout).hexdigest() == DIGEST


def tls_flags(authority: Authority, folder: Path, *hosts: str) -> tuple[str, ...]:
    pair = authority.server(hosts=hosts)
    write(path=folder / "server.pem", content=pair.chain)
    write(path=folder / "server.key", content=pair.key)
    write(path=folder / "root.pem", content=authority.root)
    return "--tls-cert", str(folder / "server.pem"), "--tls-key", str(folder / "server.key")


def test_ten_megabytes_both_ways_over_tls_and_the_urls_host_is_verified(
    address: str, authority: Authority, tmp_path: Path
) -> None:
    flags = tls_flags(authority, tmp_path, "b.example")
    trust = {"KRUN_CA_FILE": str(tmp_path / "root.pem"), "KRUN_CONNECT_TO": f"{address}:15009"}
    with target(address, digest_after_end), server(address, *flags):
        done = pipe("b.example:15003", data=RANDOM, variables=trust)
        assert done.stdout[:64].decode() == DIGEST
        assert hashlib.sha256(done.stdout[64:]).hexdigest() == DIGEST
        other = pipe("https://c.example/_hbone/15003", variables=trust)
        assert other.returncode == 69
        assert b"c.example" in other.stderr
        assert b"hint: " in other.stderr
        distrusted = pipe("b.example:15003", variables={"KRUN_CONNECT_TO": f"{address}:15009"})
        assert distrusted.returncode == 69
        assert b"KRUN_CA_FILE" in distrusted.stderr


def test_target_that_speaks_first_is_heard_before_anything_is_sent(address: str) -> None:
    with target(address, greet), server(address):
        with processes.start(
            ["hbone", url(address)], env=processes.environment(), stdin=subprocess.PIPE
        ) as hbone:  # stdin stays open: hbone ends because the other side has
            hbone.wait_for("hello")
            assert hbone.wait() == 0
        assert hbone.stderr == ""


def test_target_that_ends_first_still_gets_what_is_sent_later(address: str) -> None:
    got: list[str] = []

    def end_first(connected: socket.socket) -> None:
        connected.sendall(b"first")
        connected.shutdown(socket.SHUT_WR)
        got.append(hashlib.sha256(read_all(connected)).hexdigest())

    with target(address, end_first), server(address), forward(address, url(address)) as (_, port):
        with connect(address, port) as client:
            assert read_all(client) == b"first"
            client.sendall(RANDOM)
            client.shutdown(socket.SHUT_WR)
            assert client.recv(1) == b""
        processes.wait_until(lambda: bool(got), what="the target has read all")
    assert got == [DIGEST]


def test_client_that_ends_first_still_gets_the_answer(address: str) -> None:
    with target(address, digest_after_end), server(address), forward(address, url(address)) as (running, port):
        with connect(address, port) as client:
            client.sendall(b"question")
            client.shutdown(socket.SHUT_WR)
            assert read_all(client).endswith(b"question")
        running.wait_for("tunnel closed")
        (line,) = lines(running, "tunnel closed")
        assert (line["sent"], line["received"], line["reason"]) == (8, 72, "ended")


def test_150_tunnels_at_once_each_with_its_own_bytes(address: str) -> None:
    with target(address, echo), server(address) as hboned, forward(address, url(address)) as (_, port):
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(connect(address, port)) for _ in range(150)]
            for number, client in enumerate(clients):
                client.sendall(b"tunnel %04d" % number)
            for number, client in enumerate(clients):
                assert client.recv(11, socket.MSG_WAITALL) == b"tunnel %04d" % number
        processes.wait_until(lambda: len(lines(hboned, "tunnel closed")) == 150, what="150 tunnels closed")
        assert {line["reason"] for line in lines(hboned, "tunnel closed")} == {"ended"}


def test_tunnel_that_nobody_reads_holds_up_no_other_and_no_memory(address: str) -> None:
    stalled = threading.Event()

    def ignore(connected: socket.socket) -> None:
        stalled.wait(processes.WAIT)

    with (
        target(address, ignore),
        target(address, echo, port=7000),
        server(address, KRUN_OFFER="15003,7000") as hboned,
        forward(address, url(address)) as (_, slow),
        connect(address, slow) as client,
    ):
        client.setblocking(False)
        sent = 0
        before = resident(hboned.pid)
        with contextlib.suppress(BlockingIOError):
            while sent < 256 * 1024 * 1024:
                sent += client.send(bytes(65536))
        assert sent < 256 * 1024 * 1024
        done = pipe(url(address, "7000"), data=RANDOM)
        assert hashlib.sha256(done.stdout).hexdigest() == DIGEST
        assert resident(hboned.pid) - before < 32 * 1024 * 1024
        stalled.set()


def resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_broken_target_is_broken_for_the_client_and_not_ended(address: str) -> None:
    def break_off(connected: socket.socket) -> None:
        connected.sendall(b"half")
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")

    with target(address, break_off), server(address), forward(address, url(address)) as (_, port):
        with pytest.raises(ConnectionResetError), connect(address, port) as client:
            read_all(client)
        assert pipe(url(address)).returncode in (0, 69)  # the end of stdin may come first


# Peers that are not ours


def curl(*argv: str, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    program = components.program("curl", package="curl")
    return subprocess.run(
        [program, "-sS", "--max-time", "30", *argv], input=data, capture_output=True, timeout=60, check=False
    )


def test_curl_as_client(address: str) -> None:
    with target(address, digest_after_end), server(address):
        done = curl("--http2-prior-knowledge", "-X", "POST", "-T", "-", url(address), data=RANDOM)
        assert done.stdout[:64].decode() == DIGEST
        assert hashlib.sha256(done.stdout[64:]).hexdigest() == DIGEST


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/_hbone/15003", "405"),
        ("POST", "/_hbone/8080", "404"),
        ("POST", "/_hbone/15003", "503"),
        ("POST", "/", "404"),
        ("GET", "/index.html", "404"),
        ("POST", "/_hbone/../_hbone/15003", "404"),
        ("POST", "/_hbone/%31%35003", "404"),
        ("POST", "//_hbone/15003", "404"),
        ("POST", "/_hbone//15003", "404"),
    ],
)
def test_refusals_have_a_status_and_a_short_text(address: str, method: str, path: str, status: str) -> None:
    with server(address) as hboned:
        flags = ["--http2-prior-knowledge", "--path-as-is", "-w", "%{http_code}", "-X", method]
        done = curl(*flags, f"http://{address}:15009{path}")
        text, code = done.stdout.decode().rsplit("\n", 1)
        assert code == status
        assert 0 < len(text) < 200
        hboned.wait_for("tunnel refused")
        (line,) = lines(hboned, "tunnel refused")
        assert line["status"] == int(status)


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


def test_full_connection_gets_a_further_one_through_a_real_envoy(address: str, tmp_path: Path) -> None:
    with (
        target(address, echo),
        server(address),
        front(address, tmp_path, streams=10),
        forward(address, f"http://{address}:9000/_hbone/15003") as (running, port),
        contextlib.ExitStack() as stack,
    ):
        clients = [stack.enter_context(connect(address, port)) for _ in range(35)]
        for client in clients:
            client.sendall(b"x")
        for client in clients:
            assert client.recv(1) == b"x"
        assert len(established(running.pid, address, 9000)) == 4


def established(pid: int, address: str, port: int) -> list[str]:
    """Connections of a process to an address, by /proc (proc(5))."""
    sockets = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            sockets.add(descriptor.readlink().name)
    remote = f"{int.from_bytes(socket.inet_aton(address), 'little'):08X}:{port:04X}"
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return [row[1] for row in rows if row[2] == remote and row[3] == "01" and f"socket:[{row[9]}]" in sockets]


def test_end_of_the_answer_through_a_real_envoy_loses_nothing_on_its_way(address: str, tmp_path: Path) -> None:
    got: list[int] = []

    def end_first(connected: socket.socket) -> None:
        connected.shutdown(socket.SHUT_WR)
        got.append(len(read_all(connected)))

    with target(address, end_first), server(address), front(address, tmp_path, streams=100):
        done = pipe(f"http://{address}:9000/_hbone/15003", data=bytes(1024 * 1024))
        assert done.returncode == 0
        processes.wait_until(lambda: bool(got), what="the target has read all")
    assert got == [1024 * 1024]


class Peer:
    """An HTTP/2 client made of h2 alone, with a blocking socket."""

    def __init__(self, connected: socket.socket) -> None:
        self.socket = connected
        self.h2 = h2.connection.H2Connection()
        self.events: list[h2.events.Event] = []
        self.h2.initiate_connection()
        self.flush()

    def open(self, address: str, name: str = "15003") -> int:
        stream = self.h2.get_next_available_stream_id()
        head = [(":method", "POST"), (":scheme", "http"), (":authority", address), (":path", f"/_hbone/{name}")]
        self.h2.send_headers(stream, head)
        self.flush()
        return stream

    def wait_for(self, kind: type[h2.events.Event], stream: int | None = None) -> h2.events.Event:
        while True:
            for event in self.events:
                if isinstance(event, kind) and stream in (None, getattr(event, "stream_id", None)):
                    return event
            data = self.socket.recv(65536)
            assert data, f"the connection ended before {kind.__name__}"
            self.events += self.h2.receive_data(data)
            self.flush()

    def flush(self) -> None:
        self.socket.sendall(self.h2.data_to_send())


def test_body_of_a_request_whose_target_is_gone_is_read_and_dropped(address: str) -> None:
    with target(address, greet), server(address), connect(address, 15009) as connected:
        peer = Peer(connected)
        stream = peer.open(address)
        peer.wait_for(h2.events.DataReceived, stream)
        left = 1024 * 1024
        while left:  # far more than the windows hold: somebody reads it
            count = min(left, peer.h2.local_flow_control_window(stream), 16384)
            if not count:
                peer.events = [e for e in peer.events if not isinstance(e, h2.events.WindowUpdated)]
                peer.wait_for(h2.events.WindowUpdated)
                continue
            peer.h2.send_data(stream, bytes(count))
            peer.flush()
            left -= count
        peer.h2.end_stream(stream)
        peer.flush()
        peer.wait_for(h2.events.StreamEnded, stream)
        assert not [event for event in peer.events if isinstance(event, h2.events.StreamReset)]


def test_refused_dial_is_503_before_any_200(address: str) -> None:
    with server(address), connect(address, 15009) as connected:
        peer = Peer(connected)
        stream = peer.open(address)
        event = peer.wait_for(h2.events.ResponseReceived, stream)
        assert isinstance(event, h2.events.ResponseReceived)
        assert dict(event.headers or ())[b":status"] == b"503"


def test_more_than_1000_streams_are_not_offered_and_not_taken(address: str) -> None:
    with server(address), connect(address, 15009) as connected:
        peer = Peer(connected)
        peer.wait_for(h2.events.RemoteSettingsChanged)
        assert peer.h2.remote_settings.max_concurrent_streams == 1000


# What hbone says when there is no tunnel


class Front:
    """A server made of h2 alone that answers each request with one status."""

    def __init__(self, *, status: int, text: str) -> None:
        self.status = status
        self.text = text
        self.requests: list[dict[str, str]] = []

    def __call__(self, connected: socket.socket) -> None:
        connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        connection.initiate_connection()
        connected.sendall(connection.data_to_send())
        while data := connected.recv(65536):
            for event in connection.receive_data(data):
                if isinstance(event, h2.events.RequestReceived):
                    fields = {name.decode(): value.decode() for name, value in event.headers or ()}
                    self.requests.append(fields)
                    stream = event.stream_id or 0
                    connection.send_headers(stream, [(":status", str(self.status))])
                    connection.send_data(stream, self.text.encode(), end_stream=True)
            connected.sendall(connection.data_to_send())


@pytest.mark.parametrize(
    ("status", "exit_status", "hint"),
    [
        (401, 77, "audience"),
        (403, 77, "invoker"),
        (404, 78, "KRUN_OFFER"),
        (429, 69, "instance"),
        (502, 69, "log"),
        (503, 69, "listens"),
    ],
)
def test_status_of_the_front_becomes_exit_status_reason_and_hint(
    address: str, tmp_path: Path, status: int, exit_status: int, hint: str
) -> None:
    (tmp_path / "token").write_text("secret.of.mine\n")
    answers = Front(status=status, text="because I say so")
    with target(address, answers, port=15009):
        done = pipe(url(address, "22"), variables={"KRUN_ID_TOKEN_FILE": str(tmp_path / "token")})
    assert (done.returncode, done.stdout) == (exit_status, b"")
    error, told = done.stderr.decode().splitlines()
    assert error == f"hbone: error: no tunnel to {url(address, '22')}: status {status}, because I say so"
    assert told.startswith("hint: ")
    assert hint in told
    (request,) = answers.requests
    assert request["authorization"] == "Bearer secret.of.mine"
    assert request[":authority"] == f"{address}:15009"
    assert "secret" not in done.stderr.decode()


def test_token_command_gets_the_audience(address: str) -> None:
    answers = Front(status=403, text="")
    with target(address, answers, port=15009):
        pipe("--token-command", "sh -c 'echo {audience} | tr : .'", url(address))
    assert answers.requests[0]["authorization"] == f"Bearer https.//{address}"


def test_token_over_plain_http_off_loopback_is_refused_before_dialling() -> None:
    # 192.0.2.1 (RFC 5737) answers nobody: to dial it would take until the deadline, with another status.
    for flags in (["http://192.0.2.1:15009/_hbone/22"], ["--connect-to", "192.0.2.1:80", "http://127.0.0.1/_hbone/22"]):
        done = pipe("--token-command", "printf t", *flags)
        assert done.returncode == 78
        assert b"192.0.2.1" in done.stderr
        assert b"https" in done.stderr


def test_bad_token_file_is_named_and_not_shown(address: str, tmp_path: Path) -> None:
    bad = tmp_path / "token"
    bad.write_text("not a token")
    for file in (bad, tmp_path / "missing"):
        done = pipe("--token-file", str(file), url(address))
        assert done.returncode == 78
        assert str(file) in done.stderr.decode()
        assert b"not a token" not in done.stderr


def test_nobody_listening_at_the_server_is_69_and_names_it(address: str) -> None:
    done = pipe(url(address))
    assert done.returncode == 69
    assert f"{address}:15009: Connection refused" in done.stderr.decode()
    assert b"hint: " in done.stderr


def test_server_that_speaks_no_tls_or_no_http_2_is_69(address: str, authority: Authority, tmp_path: Path) -> None:
    with target(address, greet, port=15009):
        assert pipe(f"https://{address}:15009/_hbone/22").returncode == 69
        assert pipe(url(address)).returncode == 69


@pytest.mark.parametrize("text", ["b.example", "ftp://b.example/_hbone/22", "https://b.example/x", "b.example:0"])
def test_what_names_no_tunnel_is_a_usage_error(text: str) -> None:
    done = pipe(text)
    assert (done.returncode, done.stdout) == (2, b"")


def test_reader_of_stdout_that_goes_away_ends_hbone_without_a_traceback(address: str) -> None:
    with target(address, echo), server(address) as hboned:
        reader, writer = os.pipe()
        os.close(reader)
        with open(writer, "wb") as stdout:  # noqa: PTH123 - a descriptor, not a path
            done = subprocess.run(
                ["hbone", url(address)],
                input=b"x" * 100000,
                stdout=stdout,
                stderr=subprocess.PIPE,
                env=processes.environment(),
                timeout=30,
                check=False,
            )
        assert done.returncode == 69
        assert b"Traceback" not in done.stderr
        hboned.wait_for("tunnel closed")


# Ends


@contextlib.contextmanager
def running_tunnel(address: str) -> Iterator[Running]:
    """hbone with an echo behind it that has just answered."""
    with processes.start(["hbone", url(address)], env=processes.environment(), stdin=subprocess.PIPE) as hbone:
        say(hbone, "before")
        yield hbone


def say(hbone: Running, word: str) -> None:
    assert hbone.process.stdin is not None
    hbone.process.stdin.write(f"{word}\n".encode())
    hbone.process.stdin.flush()
    hbone.wait_for(f"^{word}$")


def end(hbone: Running) -> int:
    assert hbone.process.stdin is not None
    hbone.process.stdin.close()
    hbone.process.stdin = None
    return hbone.wait()


def test_sigterm_drains_and_running_tunnels_go_on(address: str) -> None:
    with target(address, echo), server(address) as hboned, running_tunnel(address) as hbone:
        hboned.signal(signal.SIGTERM)
        processes.wait_until(lambda: not processes.listens(address, 15009), what="the port is closed")
        say(hbone, "after")
        assert hboned.process.poll() is None
        assert end(hbone) == 0
        assert hboned.wait() == 0
        assert json.loads(hboned.stderr.splitlines()[-1])["message"] == "drained"


def test_second_sigterm_ends_running_tunnels_at_once_with_status_0(address: str) -> None:
    with target(address, echo), server(address) as hboned, running_tunnel(address) as hbone:
        hboned.signal(signal.SIGTERM)
        processes.wait_until(lambda: not processes.listens(address, 15009), what="the port is closed")
        hboned.signal(signal.SIGTERM)
        assert hboned.wait(timeout=5) == 0
        assert hbone.wait() == 69
        assert "the tunnel to" in hbone.stderr
        (line,) = lines(hboned, "tunnel closed")
        assert line["reason"] == "ended at once, by a signal"


def test_sigterm_ends_a_server_whose_connections_are_idle(address: str) -> None:
    with server(address) as hboned, connect(address, 15009) as connected:
        peer = Peer(connected)
        peer.wait_for(h2.events.RemoteSettingsChanged)
        assert hboned.terminate(timeout=5) == 0
        event = peer.wait_for(h2.events.ConnectionTerminated)
        assert isinstance(event, h2.events.ConnectionTerminated)
        assert event.error_code == h2.errors.ErrorCodes.NO_ERROR


def test_client_opens_new_tunnels_elsewhere_while_its_old_server_drains(address: str) -> None:
    with contextlib.ExitStack() as stack:
        stack.enter_context(target(address, echo))
        old = stack.enter_context(server(address))
        _, port = stack.enter_context(forward(address, url(address)))
        first = stack.enter_context(connect(address, port))
        first.sendall(b"1")
        assert first.recv(1) == b"1"
        old.signal(signal.SIGTERM)
        processes.wait_until(lambda: not processes.listens(address, 15009), what="the port is closed")
        stack.enter_context(server(address))
        second = stack.enter_context(connect(address, port))
        for client in (second, first):
            client.sendall(b"2")
            assert client.recv(1) == b"2"
        first.close()
        assert old.wait() == 0


def test_client_dials_again_when_its_server_died(address: str) -> None:
    with target(address, echo), contextlib.ExitStack() as stack:
        old = stack.enter_context(server(address))
        running, port = stack.enter_context(forward(address, url(address)))
        with connect(address, port) as client:
            client.sendall(b"1")
            assert client.recv(1) == b"1"
            old.signal(signal.SIGKILL)
            with contextlib.suppress(ConnectionResetError):
                assert client.recv(1) == b""
        old.wait()
        running.wait_for("tunnel closed")
        stack.enter_context(server(address))
        with connect(address, port) as client:
            client.sendall(b"2")
            assert client.recv(1) == b"2"


def test_forward_says_in_one_line_why_there_is_no_tunnel_and_goes_on(address: str) -> None:
    with server(address), forward(address, url(address)) as (running, port):
        for _ in range(2):
            # The reset may come while the client still connects.
            with contextlib.suppress(ConnectionResetError), connect(address, port) as client:
                assert client.recv(1) == b""
        processes.wait_until(lambda: len(lines(running, "tunnel refused")) == 2, what="two lines")
        assert "503" in str(lines(running, "tunnel refused")[0]["reason"])
        assert running.terminate() == 0


def test_forward_drains_like_a_server(address: str) -> None:
    with target(address, echo), server(address), forward(address, url(address)) as (running, port):
        with connect(address, port) as client:
            client.sendall(b"1")
            assert client.recv(1) == b"1"
            running.signal(signal.SIGTERM)
            processes.wait_until(lambda: not processes.listens(address, port), what="the port is closed")
            client.sendall(b"2")
            assert client.recv(1) == b"2"
        assert running.wait() == 0
        assert len(lines(running, "drained")) == 1


# Settings


def test_port_that_is_taken_is_named(address: str) -> None:
    with socket.create_server((address, 15009)):
        done = processes.run(["hboned"], env=processes.environment(KRUN_LOOPBACK=address))
    assert done.returncode == 78
    assert f"{address}:15009: Address already in use" in done.stderr
    done = processes.run(["hbone", "-L", "192.0.2.1:0", url(address)])
    assert done.returncode == 78


@pytest.mark.parametrize(
    ("flags", "variables", "named"),
    [
        ([], {"KRUN_OFFER": "15000"}, "15000"),
        ([], {"PORT_admin": "15090"}, "15090"),
        ([], {"KRUN_OFFER": "x"}, "'x'"),
        (["--bind", "nowhere"], {}, "nowhere"),
        (["--tls-cert", "only.pem"], {}, "--tls-key"),
        (["--tls-cert", "none.pem", "--tls-key", "none.key"], {}, "none.pem"),
    ],
)
def test_bad_settings_of_hboned_are_78_and_named(
    address: str, flags: list[str], variables: dict[str, str], named: str
) -> None:
    done = processes.run(["hboned", *flags], env=processes.environment(KRUN_LOOPBACK=address, **variables))
    assert done.returncode == 78
    assert named in done.stderr
    assert "Traceback" not in done.stderr


def test_platforms_variables_place_the_server(address: str) -> None:
    port = str(addresses.free_port())
    env = processes.environment(K_SERVICE="b", PORT=port, KRUN_LOOPBACK=address)
    with processes.start(["hboned"], env=env) as hboned:
        assert json.loads(hboned.wait_for(".*ready.*")[0])["address"] == f"0.0.0.0:{port}"


def test_ports_of_the_application_are_offered_by_name(address: str) -> None:
    with target(address, greet, port=8080), server(address, PORT_http="8080"):
        assert pipe(url(address, "http")).stdout == b"hello\n"
        assert pipe(url(address, "8080")).returncode == 78


def test_canary_token_is_in_no_output_at_any_level(address: str, tmp_path: Path) -> None:
    claims = base64.urlsafe_b64encode(b'{"aud": "x"}').decode().rstrip("=")
    token = f"canary.{claims}.signature"
    (tmp_path / "token").write_text(token)
    variables = {"KRUN_ID_TOKEN_FILE": str(tmp_path / "token"), "KRUN_LOG_LEVEL": "debug"}
    with target(address, greet), server(address, KRUN_LOG_LEVEL="debug") as hboned:
        done = pipe(url(address), variables=variables)
        assert done.stdout == b"hello\n"
        hboned.wait_for("tunnel closed")
    assert "canary" not in hboned.said() + done.stderr.decode()
