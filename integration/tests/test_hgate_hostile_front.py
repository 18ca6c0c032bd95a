"""While what a route leads to attacks hgate, the other routes of the same process serve, and it does not grow."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from krun_testbed import addresses, gate_worker, hostile_front, load_generator, processes
from krun_testbed.footprint import resident
from krun_testbed.gate_worker import HELLO, Worker
from krun_testbed.tunnels import echo, server, target

pytestmark = pytest.mark.loopback

SOAK = bool(os.environ.get("KRUN_SOAK"))
TRIPS = 200 if SOAK else 30
CALLERS = 4  # of the route that leads to the attacker, at any time
EVIL = load_generator.hello("outbound_.8080_._.evil.demo.svc.cluster.local")
FRONT = 16009  # the attacker's port
SLOWEST = 20.0  # seconds for one answer, on a machine that is busy with other tests: who is not served waits for ever
GROWTH = 64 * 1024 * 1024  # bytes, of which the kernel's copies are none


@dataclass(frozen=True, kw_only=True)
class Place:
    address: str
    worker: Worker


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    address = addresses.loopback()
    routes = (f"b.demo=http://{address}:15009/_hbone/15003", f"evil.demo=http://{address}:{FRONT}/_hbone/15003")
    with (
        target(address, echo),
        server(address),
        gate_worker.listening(address) as listener,
        gate_worker.worker(listener, *routes) as worker,
    ):
        yield Place(address=address, worker=worker)
        assert "Traceback" not in worker.running.stderr
        assert "a bug" not in worker.running.stderr


class Callers:
    """Clients of the bad route, one after the other in each thread, for as long as the block lasts."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._is_over = threading.Event()

    @contextlib.contextmanager
    def calling(self) -> Iterator[None]:
        threads = [threading.Thread(target=self._call) for _ in range(CALLERS)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._is_over.set()
            for thread in threads:
                thread.join()

    def _call(self) -> None:
        while not self._is_over.is_set():
            with contextlib.suppress(OSError), gate_worker.connect(self._address, hello=EVIL) as client:
                client.settimeout(0.5)
                while not self._is_over.is_set() and client.recv(65536):
                    pass


def round_trips(client: socket.socket, count: int) -> list[float]:
    """Seconds of each, sorted."""
    found = []
    for _ in range(count):
        began = time.monotonic()
        client.sendall(HELLO)
        got = 0
        while got < len(HELLO):
            data = client.recv(65536)
            assert data, "the good route's connection has ended"
            got += len(data)
        found.append(time.monotonic() - began)
    return sorted(found)


@contextlib.contextmanager
def good_client(address: str) -> Iterator[socket.socket]:
    with gate_worker.connect(address) as client:
        got = 0
        while got < len(HELLO):
            got += len(client.recv(65536))
        yield client


def figures(trips: list[float]) -> str:
    return f"{trips[len(trips) // 2] * 1000:.2f} / {trips[len(trips) * 99 // 100] * 1000:.2f} ms"


@pytest.mark.parametrize("kind", hostile_front.KINDS)
def test_other_routes_serve_beside_a_front_that_attacks_and_the_gate_does_not_grow(kind: str, place: Place) -> None:
    argv = [sys.executable, "-m", "krun_testbed.hostile_front", kind, "--host", place.address, "--port", str(FRONT)]
    with good_client(place.address) as client, processes.start(argv) as attacker:
        attacker.wait_for("hostile: listening", timeout=30)
        before = round_trips(client, TRIPS)
        size = resident(place.worker.running.pid)
        with Callers(place.address).calling():
            attacker.wait_for(f"hostile: {kind} 1", timeout=30)
            during = round_trips(client, TRIPS)
            grown = resident(place.worker.running.pid) - size
            with good_client(place.address) as another:  # who comes in the middle of it is served, too
                assert round_trips(another, 1)[0] < SLOWEST
        assert attacker.process.poll() is None, attacker.said()
    print(f"{kind}: p50 / p99 {figures(before)} before, {figures(during)} beside; {grown / 2**20:+.1f} MiB")
    assert during[-1] < SLOWEST
    assert grown < GROWTH
