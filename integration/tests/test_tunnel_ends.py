"""How hboned and hbone -L end: drained by the first signal, at once by the second."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import h2.errors
import h2.events
import h2.settings
import pytest

from krun_testbed import processes
from krun_testbed.certificates import Authority
from krun_testbed.h2_peers import Peer
from krun_testbed.processes import Running
from krun_testbed.tunnels import (
    connect,
    echo,
    forward,
    lines,
    read_all,
    server,
    target,
    tls_flags,
    url,
)

pytestmark = pytest.mark.loopback


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


@pytest.mark.parametrize("is_tls", [False, True], ids=["h2c", "tls"])
def test_last_bytes_of_a_drained_connection_arrive_though_its_client_still_speaks(
    address: str, authority: Authority, tmp_path: Path, is_tls: bool
) -> None:
    """A connection that is closed with something unread is reset, and the kernel drops what it has not delivered."""
    size = 3 * 1024 * 1024

    def answer(connected: socket.socket) -> None:
        read_all(connected)
        connected.sendall(bytes(size))

    flags = tls_flags(authority, tmp_path, address) if is_tls else ()
    with contextlib.ExitStack() as stack:
        stack.enter_context(target(address, answer))
        hboned = stack.enter_context(server(address, *flags))
        connected = stack.enter_context(socket.socket())
        connected.settimeout(processes.WAIT)
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        connected.connect((address, 15009))
        if is_tls:
            context = ssl.create_default_context(cafile=str(tmp_path / "root.pem"))
            context.set_alpn_protocols(["h2"])
            connected = stack.enter_context(context.wrap_socket(connected, server_hostname=address))
        peer = Peer(connected)
        peer.h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 2**31 - 1})
        peer.h2.increment_flow_control_window(2**31 - 1 - 65535)
        stream = peer.open(address)
        peer.wait_for(h2.events.ResponseReceived, stream)
        hboned.signal(signal.SIGTERM)
        peer.wait_for(h2.events.ConnectionTerminated)
        # Ended at the lowest level: after GOAWAY the library sends no more, as if that ended what is under way.
        connected.sendall(bytes((0, 0, 0, 0, 1)) + stream.to_bytes(4, "big"))
        hboned.wait_for("tunnel closed")  # all of the answer is with the kernels
        got = 0
        with contextlib.suppress(ConnectionResetError):  # when all of it is here
            while data := connected.recv(65536):
                got += len(data)
                with contextlib.suppress(BrokenPipeError, ConnectionResetError, ssl.SSLEOFError):
                    connected.sendall(bytes((0, 0, 8, 6, 0, 0, 0, 0, 0)) + bytes(8))
        assert got > size
        connected.close()
        assert hboned.wait() == 0
