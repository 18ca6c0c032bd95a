"""hboned against peers that mean ill or have died: what each may cost is bounded, and the others do not notice."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import h2.events
import h2.settings
import pytest

from krun_testbed import processes
from krun_testbed.footprint import resident
from krun_testbed.h2_peers import Peer
from krun_testbed.processes import Running
from krun_testbed.tunnels import connect, echo, forward, lines, pipe, read_all, server, target, url

pytestmark = pytest.mark.loopback

RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close() sends a reset
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))


def frame(kind: int, *, flags: int = 0, stream: int = 0, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes((kind, flags)) + struct.pack(">I", stream) + payload


def descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def silent_after_end(connected: socket.socket) -> None:
    """A target that has taken all it wants, and says nothing more: a long poll."""
    read_all(connected)
    connected.shutdown(socket.SHUT_RD)
    with contextlib.suppress(TimeoutError):
        while connected.recv(1):
            pass


@pytest.mark.parametrize("is_lost", [True, False])
def test_client_that_has_ended_and_is_gone_ends_a_tunnel_whose_target_is_silent(address: str, is_lost: bool) -> None:
    with socket.create_server((address, 15003)) as silent, server(address) as hboned:
        with connect(address, 15009) as connected:
            peer = Peer(connected)
            stream = peer.open(address)
            peer.wait_for(h2.events.ResponseReceived, stream)
            peer.h2.end_stream(stream)
            peer.flush()
            taken, _ = silent.accept()
            with taken:
                taken.settimeout(processes.WAIT)
                assert taken.recv(1) == b""
                if is_lost:
                    connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                    connected.close()
                else:
                    peer.h2.reset_stream(stream, 8)
                    peer.flush()
                hboned.wait_for("tunnel closed")
        assert hboned.terminate() == 0


def test_streams_opened_and_reset_in_a_row_are_not_dialled_and_end_the_connection(address: str) -> None:
    with target(address, echo), server(address) as hboned, connect(address, 15009) as connected:
        peer = Peer(connected)
        peer.wait_for(h2.events.RemoteSettingsChanged)
        for _ in range(3000):
            stream = peer.h2.get_next_available_stream_id()
            head = [(":method", "POST"), (":scheme", "http"), (":authority", "b"), (":path", "/_hbone/15003")]
            peer.h2.send_headers(stream, head)
            peer.h2.reset_stream(stream, 8)
        most = 0
        with contextlib.suppress(ConnectionError):
            peer.flush()
            while connected.recv(65536):
                most = max(most, descriptors(hboned.pid))
        hboned.wait_for('"connection refused".*opens and resets streams too fast')
        assert most < 300  # some are dialled, as they come in pieces
        assert len(lines(hboned, "connection refused")) == 1
        assert pipe(url(address), data=b"still here").stdout == b"still here"


def test_streams_reset_at_a_persons_pace_are_no_fault(address: str) -> None:
    with target(address, echo), server(address) as hboned, connect(address, 15009) as connected:
        peer = Peer(connected)
        for _ in range(200):
            stream = peer.open(address)
            peer.wait_for(h2.events.ResponseReceived, stream)
            peer.h2.reset_stream(stream, 8)
            peer.events.clear()
        peer.wait_for(h2.events.ResponseReceived, peer.open(address))
        assert not lines(hboned, "connection refused")


# Frames that carry nothing, after what must come before them.
FLOODS = {
    "ping": (b"", frame(6, payload=bytes(8))),
    "settings": (b"", frame(4)),
    "priority": (b"", frame(2, stream=1, payload=bytes(5))),
    "window": (b"", frame(8, payload=bytes(3) + b"\1")),
    "unknown": (b"", frame(0xF0)),
    "continuation": (frame(1, stream=1), frame(9, stream=1)),
    "data": (frame(1, flags=4, stream=1, payload=b"\x83\x86\x84\x41\x01a"), frame(0, stream=1)),
    "padding": (
        frame(1, flags=4, stream=1, payload=b"\x83\x86\x84\x41\x01a"),
        frame(0, flags=8, stream=1, payload=b"\x01\x00"),
    ),
}


@pytest.mark.parametrize("kind", FLOODS)
def test_peer_that_floods_us_with_nothing_is_cut_off(address: str, kind: str) -> None:
    with server(address) as hboned, connect(address, 15009) as connected:
        before, spent = resident(hboned.pid), cpu_seconds(hboned.pid)
        first, rest = FLOODS[kind]
        connected.sendall(PREFACE + first)
        with contextlib.suppress(ConnectionError):
            connected.sendall(rest * 200_000)
            read_all(connected)
        hboned.wait_for("frames that carry nothing")
        assert len(lines(hboned, "connection refused")) == 1
        assert resident(hboned.pid) - before < 32 * 1024 * 1024
        assert cpu_seconds(hboned.pid) - spent < 5  # the whole flood costs as much again and again


@pytest.mark.parametrize(
    "frames",
    [
        # CONTINUATION without end (CVE-2024-27316), and headers that are larger unpacked than packed.
        frame(1, stream=1, payload=b"\x00\x01a\x01b" * 100)
        + frame(9, stream=1, payload=b"\x00\x01a\x01b" * 3000) * 500,
        frame(1, flags=4, stream=1, payload=b"\x40\x01a\x7f\xa1\x1e" + b"b" * 4000 + b"\xbe" * 12000),
        b"GET / HTTP/1.1\r\n\r\n" * 3,
        frame(0, stream=7, payload=b"x"),
        frame(0, stream=1, payload=bytes(256 * 1024 + 1)),
    ],
    ids=["continuation", "bomb", "http1", "unknown stream", "too long"],
)
def test_peer_that_breaks_the_protocol_is_closed_with_one_line(address: str, frames: bytes) -> None:
    with server(address) as hboned, connect(address, 15009) as connected:
        before = resident(hboned.pid)
        with contextlib.suppress(ConnectionError):
            connected.sendall(PREFACE + frames)
            read_all(connected)
        hboned.wait_for("connection refused")
        (line,) = lines(hboned, "connection refused")
        assert "broke the protocol" in str(line["reason"])
        assert str(line["peer"]).startswith("127.")
        assert resident(hboned.pid) - before < 32 * 1024 * 1024
        assert len(hboned.stderr.splitlines()) == 2


@contextlib.contextmanager
def with_few_files(address: str, command: str) -> Iterator[Running]:
    env = processes.environment(KRUN_LOOPBACK=address, KRUN_LOG_FORMAT="json")
    with processes.start(["sh", "-c", f"ulimit -n 100; exec {command}"], env=env) as running:
        running.wait_for('"ready"')
        yield running


@pytest.mark.parametrize("command", ["hboned", "hbone -L {address}:15010 http://{address}:15009/_hbone/15003"])
def test_more_connections_than_files_neither_spin_nor_end_the_daemon(address: str, command: str) -> None:
    with contextlib.ExitStack() as stack:
        stack.enter_context(target(address, echo))
        port = 15009 if command == "hboned" else 15010
        if port == 15010:
            stack.enter_context(server(address))
        daemon = stack.enter_context(with_few_files(address, command.format(address=address)))
        with contextlib.ExitStack() as clients:
            for _ in range(200):
                clients.enter_context(connect(address, port))
            processes.wait_until(lambda: descriptors(daemon.pid) > 20, what="connections are taken")
            before = cpu_seconds(daemon.pid)
            started = time.monotonic()
            processes.wait_until(lambda: time.monotonic() - started > 1.0, what="a second of siege", poll=0.1)
            assert cpu_seconds(daemon.pid) - before < 0.5
            assert descriptors(daemon.pid) <= 100
        if port == 15009:
            assert pipe(url(address), data=b"after").stdout == b"after"
        else:
            with connect(address, port) as client:
                client.sendall(b"after")
                assert client.recv(5, socket.MSG_WAITALL) == b"after"
        assert len(daemon.stderr.splitlines()) < 250  # a line for each connection at most


def test_window_without_end_leaves_the_others_their_turn(address: str) -> None:
    """A peer that grants 2 GiB at once, and reads as fast as it comes, must not have the loop to itself."""

    def pour(connected: socket.socket) -> None:
        piece = bytes(1024 * 1024)
        for _ in range(200):
            connected.sendall(piece)

    with (
        target(address, pour),
        target(address, echo, port=7000),
        server(address, KRUN_OFFER="15003,7000"),
        forward(address, url(address, "7000")) as (_, port),
        connect(address, port) as other,
        connect(address, 15009) as connected,
    ):
        peer = Peer(connected)
        peer.h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 2**31 - 1})
        peer.h2.increment_flow_control_window(2**31 - 1 - 65535)
        peer.flush()
        peer.wait_for(h2.events.SettingsAcknowledged)
        peer.wait_for(h2.events.ResponseReceived, peer.open(address))
        got = 0
        answered_at = 0
        other.sendall(b"x")
        other.setblocking(False)
        while got < 150 * 1024 * 1024:
            got += len(connected.recv(1024 * 1024))
            with contextlib.suppress(BlockingIOError):
                if not answered_at and other.recv(1):
                    answered_at = got
        assert 0 < answered_at < 100 * 1024 * 1024
