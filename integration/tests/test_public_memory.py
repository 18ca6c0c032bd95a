"""What a request may cost hboned in memory: nothing that grows with the body, whoever is the slow one."""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path

import hpack
import pytest

from krun_testbed import processes, recorder
from krun_testbed.processes import Running
from krun_testbed.public_peers import PREFACE, Http2, head, served
from krun_testbed.tunnels import connect

pytestmark = pytest.mark.loopback

MIB = 1024**2
BODY = (2048 if os.environ.get("KRUN_SOAK") else 96) * MIB
# What one request may hold: windows, sockets' buffers in the process, pieces on their way, and the allocator's own.
BOUND = 12 * MIB


def peak(running: Running) -> int:
    """The most memory that the process has ever had, in bytes."""
    for line in Path(f"/proc/{running.pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmHWM")


def warm(address: str) -> None:
    """One small request of each kind first: what is imported late is here then."""
    for path in (b"/?size=200000", b"/?size=1"):
        with connect(address, 15009) as connected:
            connected.sendall(b"GET %b HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n" % path)
            while connected.recv(65536):
                pass
        with connect(address, 15009) as connected:
            peer = Http2(connected)
            assert peer.wait(peer.request(head(path))).status == 200


def report(what: str, *, before: int, after: int) -> None:
    print(f"{what}, {BODY // MIB} MiB: {before / MIB:.1f} MiB before, at most {after / MIB:.1f} MiB")


def stalled(address: str, hboned: Running) -> None:
    """Wait until nothing moves any more: the whole way is full."""
    ticks = -1

    def is_quiet() -> bool:
        nonlocal ticks
        words = Path(f"/proc/{hboned.pid}/stat").read_text().rpartition(")")[2].split()
        before, ticks = ticks, int(words[11]) + int(words[12])
        return before == ticks

    processes.wait_until(is_quiet, what="all is full", poll=0.4)


def test_download_to_a_client_that_stops_reading_is_held_back_at_the_application(address: str) -> None:
    with served(address) as (hboned, _):
        warm(address)
        before = peak(hboned)
        with connect(address, 15009) as connected:
            connected.sendall(b"GET /?size=%d HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n" % BODY)
            connected.recv(1)
            stalled(address, hboned)
            count = 1
            while data := connected.recv(MIB):
                count += len(data)
            assert count > BODY
        report("download, HTTP/1.1", before=before, after=peak(hboned))
        assert peak(hboned) - before < BOUND


def test_download_over_http2_is_held_back_by_the_clients_window(address: str) -> None:
    with served(address) as (hboned, _):
        warm(address)
        before = peak(hboned)
        with connect(address, 15009) as connected:
            # By hand: no window is opened beyond the first 65,535 bytes.
            connected.sendall(PREFACE + bytes(3) + b"\x04\0" + bytes(4) + request(f"/?size={BODY}"))
            stalled(address, hboned)
        report("download, HTTP/2, stopped", before=before, after=peak(hboned))
        assert peak(hboned) - before < BOUND


def request(path: str) -> bytes:
    fields = [(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", path)]
    block = hpack.Encoder().encode(fields)
    return len(block).to_bytes(3, "big") + b"\x01\x05" + (1).to_bytes(4, "big") + block


def test_upload_to_an_application_that_stops_reading_is_held_back_at_the_client(address: str) -> None:
    with served(address) as (hboned, recording):
        warm(address)
        before = peak(hboned)
        with connect(address, 15009) as connected:
            start = b"POST /up?wait HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % BODY
            connected.sendall(start)
            recording.wait_for('"waiting": "/up')
            connected.settimeout(1.0)
            sent = 0
            with contextlib.suppress(TimeoutError):
                while sent < BODY:
                    sent += connected.send(recorder.PIECE)
            assert sent < BODY // 4
            report("upload, stopped", before=before, after=peak(hboned))
            assert peak(hboned) - before < BOUND
            connected.setblocking(True)
            release(address)
            while sent < BODY:
                sent += connected.send(recorder.PIECE[: BODY - sent])
            connected.shutdown(socket.SHUT_WR)
            assert b"200" in connected.recv(4096)
        report("upload, then read", before=before, after=peak(hboned))
        assert peak(hboned) - before < BOUND


def release(address: str) -> None:
    with connect(address, 8080) as connected:
        connected.sendall(b"GET /go?size=0 HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
        assert b"200" in connected.recv(4096)
