"""While somebody attacks hboned, its other peers in the same process are served, and it does not grow."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from krun_testbed import addresses, hostile, processes
from krun_testbed.footprint import resident
from krun_testbed.processes import Running
from krun_testbed.scripted import DATA, PREFACE, SETTINGS, frame
from krun_testbed.tunnels import connect, echo, server, target

pytestmark = pytest.mark.loopback

SOAK = bool(os.environ.get("KRUN_SOAK"))
PINGS = 200 if SOAK else 30
KINDS = hostile.KINDS if SOAK else ("continuations", "resets", "single-bytes", "bombs", "slow-readers")
SLOWEST = 20.0  # seconds for one answer, on a machine that is busy with other tests: who is not served waits for ever
GROWTH = 64 * 1024 * 1024  # bytes, of which the kernel's copies are none


@dataclass(frozen=True, kw_only=True)
class Place:
    address: str
    hboned: Running


def pour(connected: socket.socket) -> None:
    """A target that has much to say."""
    with contextlib.suppress(OSError):
        while True:
            connected.sendall(bytes(64 * 1024))


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    address = addresses.loopback()
    with (
        target(address, echo),
        target(address, pour, port=7000),
        server(address, KRUN_OFFER="15003,7000") as hboned,
    ):
        yield Place(address=address, hboned=hboned)
        assert "Traceback" not in hboned.stderr
        assert "a bug" not in hboned.stderr
        hboned.signal(15)
        hboned.signal(15)
        hboned.wait()


@contextlib.contextmanager
def good_peer(place: Place) -> Iterator[socket.socket]:
    """Its tunnel to the echo is open."""
    with connect(place.address, 15009) as connected:
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connected.sendall(PREFACE + frame(SETTINGS) + hostile.opened(1, b"/_hbone/15003"))
        frames = _frames(connected)
        while next(frames)[3] != 1:
            pass
        yield connected


def _frames(connected: socket.socket) -> Iterator[bytes]:
    while True:
        head = _whole(connected, 9)
        yield head + _whole(connected, int.from_bytes(head[:3], "big"))


def _whole(connected: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size:
        data = connected.recv(size - len(found))
        assert data, "the good peer's connection has ended"
        found += data
    return found


def round_trips(connected: socket.socket, count: int) -> list[float]:
    """Seconds of each, sorted."""
    found = []
    frames = _frames(connected)
    for _ in range(count):
        began = time.monotonic()
        connected.sendall(frame(DATA, stream=1, payload=b"x"))
        while next(frames)[3] != DATA:
            pass
        found.append(time.monotonic() - began)
    return sorted(found)


def figures(trips: list[float]) -> str:
    return f"{trips[len(trips) // 2] * 1000:.2f} / {trips[len(trips) * 99 // 100] * 1000:.2f} ms"


@pytest.mark.parametrize("kind", KINDS)
def test_others_are_served_beside_an_attack_and_the_server_does_not_grow(kind: str, place: Place) -> None:
    path = "/_hbone/7000" if kind in hostile.HOLDS else "/_hbone/15003"
    argv = [sys.executable, "-m", "krun_testbed.hostile", kind, "--host", place.address, "--path", path]
    with good_peer(place) as peer:
        before = round_trips(peer, PINGS)
        size = resident(place.hboned.pid)
        with processes.start(argv) as attacker:
            attacker.wait_for("attacking", timeout=30)
            during = round_trips(peer, PINGS)
            grown = resident(place.hboned.pid) - size
            with good_peer(place) as another:  # who comes in the middle of it is served, too
                assert round_trips(another, 1)[0] < SLOWEST
            assert attacker.process.poll() is None, attacker.said()
        print(f"{kind}: p50 / p99 {figures(before)} before, {figures(during)} beside; {grown / 2**20:+.1f} MiB")
        assert during[-1] < SLOWEST
        assert grown < GROWTH
