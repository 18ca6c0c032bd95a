"""hbone -L and hboned for long: thousands of tunnels, many idle, gigabytes through, and nothing of it stays."""

from __future__ import annotations

import contextlib
import os
import struct
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from krun_testbed import load_generator, processes
from krun_testbed.certificates import Authority
from krun_testbed.footprint import Footprint, connections
from krun_testbed.processes import Running
from krun_testbed.tunnels import connect, forward, read_exactly, server, tls_flags, url

IS_LONG = bool(os.environ.get("KRUN_SOAK"))
PARTS = 5 if IS_LONG else 1
OPENED = 2_000 if IS_LONG else 100  # tunnels of a part
IDLE = 1_000 if IS_LONG else 100
BLOCKS = 10 * 1024 if IS_LONG else 16  # MiB to an echo, and as many back
WARM = 1024 if IS_LONG else BLOCKS
REST = 20.0 if IS_LONG else 0.2  # seconds in which CPU is looked at
AT_REST = 0.005  # of a CPU
TICKS = 0.03  # seconds: three of the kernel's clock
# KiB that a process may have more than after its warm-up: the blocks that hbone.backlog keeps for what waits, of which
# the warm-up may have needed fewer; and what the allocator has rounded up. It is the same for 64 MiB and for 20 GiB.
KEPT = 4096 + 1024
AT_ONCE = 20
BLOCK = os.urandom(1024 * 1024 - 8)

pytestmark = [pytest.mark.loopback, pytest.mark.timeout(3600 if IS_LONG else 120)]


def opened_and_closed(address: str, port: int) -> None:
    """The tunnels of a part, some at once, each for one byte to and fro."""
    for _ in range(OPENED // AT_ONCE):
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(connect(address, port)) for _ in range(AT_ONCE)]
            for client in clients:
                client.sendall(b"x")
            for client in clients:
                assert client.recv(1) == b"x"


def poured(address: str, port: int, blocks: int) -> None:
    """All of it to an echo and back, each block compared with its number."""
    with connect(address, port) as client:

        def send() -> None:
            for number in range(blocks):
                client.sendall(struct.pack(">Q", number))
                client.sendall(BLOCK)

        sender = threading.Thread(target=send)
        sender.start()
        for number in range(blocks):
            assert read_exactly(client, 8) == struct.pack(">Q", number)
            assert read_exactly(client, len(BLOCK)) == BLOCK
        sender.join(processes.WAIT)


def cpu_at_rest(running: Sequence[Running]) -> float:
    """Seconds of CPU that they have while nothing happens; the longest is told."""
    before = [Footprint.of(one.pid).cpu for one in running]
    assert not running[0].ends(timeout=REST)
    return max(Footprint.of(one.pid).cpu - spent for one, spent in zip(running, before, strict=True))


def footprints(running: Sequence[Running]) -> list[Footprint]:
    return [Footprint.of(one.pid) for one in running]


@pytest.mark.parametrize("scheme", ["h2c", "tls"])
def test_nothing_grows_with_what_has_passed(address: str, authority: Authority, tmp_path: Path, scheme: str) -> None:
    served = tls_flags(authority, tmp_path, "b.example") if scheme == "tls" else ()
    trusted = ("--ca-file", str(tmp_path / "root.pem"), "--connect-to", f"{address}:15009") if served else ()
    tunnel = "https://b.example/_hbone/20001" if served else url(address, "20001")
    with (
        load_generator.servers(address=address, folder=tmp_path),
        server(address, *served, KRUN_OFFER="20001") as hboned,
        forward(address, tunnel, *trusted) as (hbone, port),
    ):
        both = (hbone, hboned)
        fresh = footprints(both)

        def are_closed() -> bool:
            """Of the sockets only those are left that the two have for each other."""
            shared = connections(hbone.pid, address, 15009)
            return [one.sockets - shared for one in footprints(both)] == [one.sockets for one in fresh]

        def settled() -> list[Footprint]:
            processes.wait_until(are_closed, what="all that tunnels had open is closed")
            return footprints(both)

        def with_idle() -> float:
            with load_generator.idle(f"{address}:{port}", IDLE):
                return cpu_at_rest(both)

        # Warm: each kind of work once, so that what is kept for the next one is there.
        opened_and_closed(address, port)
        with_idle()
        poured(address, port, WARM)
        opened_and_closed(address, port)
        warm = settled()

        spent = []
        for _ in range(PARTS):
            before = footprints(both)
            opened_and_closed(address, port)
            spent.append([(b.cpu - a.cpu) * 1000 / OPENED for a, b in zip(before, settled(), strict=True)])
        poured(address, port, BLOCKS)
        idle = with_idle()
        after, rest = settled(), cpu_at_rest(both)

    print(f"\n{scheme}: warm {warm}\nafter {after}\nCPU ms a tunnel {spent}, s at rest {rest}, with {IDLE} idle {idle}")
    for early, late in zip(warm, after, strict=True):
        assert late.memory <= early.memory + KEPT
        assert late.files <= early.files
    assert max(rest, idle) <= AT_REST * REST + TICKS
    if IS_LONG:  # fewer tunnels are too few for a clock of 10 ms
        for first, *_, before_last, last in zip(*spent, strict=True):
            assert min(before_last, last) <= 1.5 * first  # what grows, grows in both
