"""Thousands of connections at once through hgate: all serve, each costs little, and nothing of them stays."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from krun_testbed import gate_worker, load_generator, processes
from krun_testbed.gate_worker import HELLO, Worker
from krun_testbed.tunnels import connect, server

pytestmark = pytest.mark.loopback

COUNT = 10_000 if os.environ.get("KRUN_SOAK") else 1_000
PART = 500  # of them, by one caller
RAW_KIB, TUNNEL_KIB = 2.0, 6.0  # a connection; what was measured is half of it


def resident(workers: Sequence[Worker]) -> int:
    """KiB of memory that they have for themselves."""
    total = 0
    for worker in workers:
        status = Path(f"/proc/{worker.running.pid}/status").read_text()
        total += int(next(line.split()[1] for line in status.splitlines() if line.startswith("RssAnon")))
    return total


def serves(address: str) -> bool:
    with connect(address, gate_worker.PORT) as client:
        client.sendall(HELLO)
        got = b""
        while len(got) < len(HELLO):
            got += client.recv(65536)
        return got == HELLO


def open_and_close(address: str, workers: Sequence[Worker], hello: Path, *, count: int, kind: str) -> int:
    """Have so many open at once, call beside them, close them; KiB of memory with all open."""

    def are_open(wanted: int) -> bool:
        return sum(worker.count(f"open_{kind}") for worker in workers) == wanted

    with contextlib.ExitStack() as stack:
        for size in [PART] * (count // PART):
            stack.enter_context(load_generator.idle(f"{address}:{gate_worker.PORT}", size, str(hello)))
        processes.wait_until(lambda: are_open(count), what="all are open")
        most = resident(workers)
        assert serves(address)
    processes.wait_until(lambda: are_open(0), what="all are closed")
    return most


@pytest.fixture
def hello(tmp_path: Path) -> Path:
    (tmp_path / "hello").write_bytes(HELLO)
    return tmp_path / "hello"


@pytest.mark.timeout(300)
def test_thousands_of_connections_led_on_as_they_are(address: str, hello: Path, tmp_path: Path) -> None:
    with (
        load_generator.servers(address=address, folder=tmp_path) as behind,
        gate_worker.listening(address) as listener,
        # Two files a connection: one worker alone may not have as many.
        gate_worker.worker(listener, f"b.demo=tcp://{address}:{behind.echo}") as one,
        gate_worker.worker(listener, f"b.demo=tcp://{address}:{behind.echo}") as other,
    ):
        workers = (one, other)
        assert serves(address)
        before = resident(workers)
        most = open_and_close(address, workers, hello, count=COUNT, kind="raw")
        assert (most - before) / COUNT < RAW_KIB
        # Half as many each: ports of callers are not free again for a minute.
        second, third = (open_and_close(address, workers, hello, count=COUNT // 2, kind="raw") for _ in range(2))
        assert third < second + 1024


def test_a_thousand_tunnels(address: str, hello: Path, tmp_path: Path) -> None:
    with (
        load_generator.servers(address=address, folder=tmp_path, ports=(15003, 20002, 20003)),
        server(address),
        gate_worker.listening(address) as listener,
        gate_worker.worker(listener, f"b.demo=http://{address}:15009/_hbone/15003") as worker,
    ):
        assert serves(address)
        before = resident([worker])
        most = open_and_close(address, [worker], hello, count=1000, kind="tunnels")
        assert (most - before) / 1000 < TUNNEL_KIB
        assert open_and_close(address, [worker], hello, count=1000, kind="tunnels") < most + 2048
