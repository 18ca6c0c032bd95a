"""hbone -L: several ports, tunnels over connections that are shared as far as the server takes it."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest

from hbone.events import DataReceived, StreamEnded, StreamOpened, StreamReset
from hbone.tunnel import Connection
from hbone.urls import parse_forward, parse_url
from krun_testbed import processes
from krun_testbed.processes import Running
from krun_testbed.tunnels import connect, lines, read_exactly, target, url

URL = "https://b.example/_hbone/22"


@pytest.mark.parametrize(
    ("text", "address", "tunnel"),
    [
        ("2222", "127.0.0.1:2222", URL),
        ("0", "127.0.0.1:0", URL),
        ("127.0.0.2:2222", "127.0.0.2:2222", URL),
        ("[::1]:2222", "[::1]:2222", URL),
        ("2222:c.example:23", "127.0.0.1:2222", "https://c.example/_hbone/23"),
        ("0.0.0.0:2222:c.example:23", "0.0.0.0:2222", "https://c.example/_hbone/23"),
        ("localhost:2222:c.example:23", "127.0.0.1:2222", "https://c.example/_hbone/23"),
        ("[::1]:2222:[::2]:23", "[::1]:2222", "https://[::2]/_hbone/23"),
        ("2222:http://c.example:80/_hbone/x", "127.0.0.1:2222", "http://c.example/_hbone/x"),
        ("127.0.0.1:2222:c.example:443/_hbone/22", "127.0.0.1:2222", "https://c.example/_hbone/22"),
    ],
)
def test_forms_of_a_forward(text: str, address: str, tunnel: str) -> None:
    found = parse_forward(text, url=parse_url(URL))
    assert (str(found.listen), str(found.url)) == (address, tunnel)


@pytest.mark.parametrize(
    "text", ["", ":", "x", "2222:", "2222:b", "b.example:22:c.example:22", "[::1]2222", "70000", "1:2:3:4", "[::1]"]
)
def test_what_is_no_forward_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        parse_forward(text, url=parse_url(URL))


def test_forward_without_a_tunnel_is_refused() -> None:
    with pytest.raises(ValueError, match="names no tunnel"):
        parse_forward("2222", url=None)


@contextlib.contextmanager
def forwarding(*argv: str, count: int) -> Iterator[tuple[Running, list[int]]]:
    """hbone -L, and its ports in their order."""
    with processes.start(["hbone", *argv], env=processes.environment(KRUN_LOG_FORMAT="json")) as running:
        processes.wait_until(lambda: len(lines(running, "ready")) == count, what="all ports listen")
        yield running, [int(str(line["address"]).rpartition(":")[2]) for line in lines(running, "ready")]


class Two:
    """A server of the tunnel that takes two streams at once, and says first which tunnel it is."""

    def __init__(self) -> None:
        self.connections = 0
        self.most = 0  # streams at once, in one connection
        self._lock = threading.Lock()

    def __call__(self, connected: socket.socket) -> None:
        with self._lock:
            self.connections += 1
        core = Connection(client=False, max_streams=2)
        connected.sendall(core.data_to_send())
        while data := connected.recv(65536):
            for event in core.receive(data):
                if isinstance(event, StreamOpened):
                    core.respond(event.stream, 200)
                    core.send(event.stream, event.path.rpartition("/")[2].encode())
                elif isinstance(event, StreamEnded):
                    core.end(event.stream)
                elif isinstance(event, DataReceived):
                    core.send(event.stream, event.data)
                assert not isinstance(event, StreamReset)
            with self._lock:
                self.most = max(self.most, len(core.open_streams))
            connected.sendall(core.data_to_send())


@pytest.mark.loopback
def test_connections_of_several_ports_are_shared_as_far_as_the_servers_limit_goes(address: str) -> None:
    server = Two()
    flags = [word for name in ("a", "b") for word in ("-L", f"{address}:0:{url(address, name)}")]
    with target(address, server, port=15009), forwarding(*flags, count=2) as (running, ports):
        with contextlib.ExitStack() as stack:
            for number in range(7):
                client = stack.enter_context(connect(address, ports[number % 2]))
                client.sendall(b"hello")
                assert read_exactly(client, 6) == (b"ahello" if number % 2 == 0 else b"bhello")
            assert (server.connections, server.most) == (4, 2)
        processes.wait_until(lambda: len(lines(running, "tunnel closed")) == 7, what="all tunnels are closed")
        with connect(address, ports[0]) as client:  # over one of those that are there
            assert client.recv(1) == b"a"
        assert server.connections == 4
        assert running.terminate() == 0


@pytest.mark.loopback
def test_seven_at_once_share_connections_too(address: str) -> None:
    server = Two()
    with (
        target(address, server, port=15009),
        forwarding("-L", f"{address}:0", url(address, "a"), count=1) as (_, ports),
        contextlib.ExitStack() as stack,
    ):
        clients = [stack.enter_context(connect(address, ports[0])) for _ in range(7)]
        assert {client.recv(1) for client in clients} == {b"a"}
        assert server.most == 2
        assert 4 <= server.connections <= 7


@pytest.mark.loopback
def test_port_that_is_taken_is_named_and_none_is_opened(address: str) -> None:
    with socket.create_server((address, 0)) as taken:
        port = taken.getsockname()[1]
        argv = ["hbone", "-L", f"{address}:0", "-L", f"{address}:{port}", url(address)]
        done = processes.run(argv, env=processes.environment(KRUN_LOG_FORMAT="json"))
    assert done.returncode == 78
    assert f"cannot listen on {address}:{port}: Address already in use" in done.stderr
    assert '"ready"' not in done.stderr


@pytest.mark.loopback
def test_port_listens_on_loopback_unless_told(address: str) -> None:
    with forwarding("-L", "0:b.example:22", count=1) as (running, ports):
        assert lines(running, "ready")[0]["address"] == f"127.0.0.1:{ports[0]}"
        assert not processes.listens(address, ports[0])
        assert running.terminate() == 0


@pytest.mark.loopback
@pytest.mark.parametrize("argv", [["-L", "2222"], ["-L", "b.example:1:c:2"], ["-L", "1:x", URL], []])
def test_forward_that_leads_nowhere_is_a_usage_error(argv: list[str]) -> None:
    done = processes.run(["hbone", *argv])
    assert (done.returncode, done.stdout) == (2, "")
    assert "see 'hbone --help'" in done.stderr
