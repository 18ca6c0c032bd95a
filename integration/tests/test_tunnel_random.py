"""hbone -L and hboned under random schedules: every order of ends, breaks on each side; whole by hash, or broken."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import socket
import struct
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from krun_testbed import processes
from krun_testbed.certificates import Authority
from krun_testbed.tunnels import connect, forward, server, target, tls_flags, url

pytestmark = pytest.mark.loopback

SCHEDULES = 1_500 if os.environ.get("KRUN_SOAK") else 36
AT_ONCE = 6
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close() sends a reset
SEED = struct.Struct(">Q")
ORDERS = ("client first", "target first", "as it comes", "client at once", "target at once")
BREAKS = ("", "", "", "", "client", "target")
SIZES = (0, 1, 500, 20_000, 300_000, 2_000_000)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What both ends do, out of one number."""

    order: str
    breaks: str  # who breaks off, in the middle of what it says
    up: bytes
    down: bytes
    piece: int

    @classmethod
    def of(cls, seed: int) -> Plan:
        chance = random.Random(seed)
        order, breaks = chance.choice(ORDERS), chance.choice(BREAKS)
        up, down = (chance.randbytes(chance.choice(SIZES) + chance.randint(0, 99)) for _ in range(2))
        return cls(
            order=order,
            breaks=breaks,
            up=b"" if order == "client at once" else up,
            down=b"" if order == "target at once" else down,
            piece=chance.choice((1_000, 16_384, 70_000, 1_000_000)),
        )


def send(connected: socket.socket, data: bytes, *, piece: int, is_broken: bool) -> None:
    """Say it and end, or stop in the middle."""
    until = len(data) // 2 if is_broken else len(data)
    for start in range(0, until, piece):
        connected.sendall(data[start : min(start + piece, until)])
    # Who breaks off hears no more: the thread that listens must have let go of the socket.
    connected.shutdown(socket.SHUT_RD if is_broken else socket.SHUT_WR)


def break_off(connected: socket.socket) -> None:
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    connected.close()


def read(connected: socket.socket) -> str:
    """The digest of all that came; nothing if it did not end in order."""
    digest = hashlib.sha256()
    with contextlib.suppress(OSError):
        while data := connected.recv(100_000):
            digest.update(data)
        return digest.hexdigest()
    return ""


class Ends:
    """The far ends, and what each has got."""

    def __init__(self) -> None:
        self._got: dict[int, str] = {}
        self._changed = threading.Condition()

    def __call__(self, connected: socket.socket) -> None:
        head = b""
        while len(head) < SEED.size:
            data = connected.recv(SEED.size - len(head))
            if not data:
                return
            head += data
        (seed,) = SEED.unpack(head)
        plan = Plan.of(seed)
        got = converse(connected, plan, is_client=False)
        with self._changed:
            self._got[seed] = got
            self._changed.notify_all()

    def wait(self, seed: int) -> str:
        with self._changed:
            assert self._changed.wait_for(lambda: seed in self._got, timeout=60), f"target of {seed} has not ended"
            return self._got[seed]


def converse(connected: socket.socket, plan: Plan, *, is_client: bool) -> str:
    """Speak and listen at the same time, or one after the other as the plan has it; what was heard."""
    name = "client" if is_client else "target"
    data = plan.up if is_client else plan.down
    is_broken = plan.breaks == name
    found: list[str] = []
    listener = threading.Thread(target=lambda: found.append(read(connected)))
    listener.start()
    if plan.order == ("target first" if is_client else "client first"):
        listener.join(60)
    is_lost = False
    try:
        send(connected, data, piece=plan.piece, is_broken=is_broken)
    except OSError:
        is_lost = True  # the kernel says so once: who listens may hear a mere end after that
    listener.join(60)
    assert found, f"{name} hears no end"
    if is_broken:
        break_off(connected)
    return "" if is_lost else found[0]


@contextlib.contextmanager
def tunnelled(address: str, ends: Ends, *, authority: Authority, folder: Path, is_tls: bool) -> Iterator[int]:
    flags = tls_flags(authority, folder, address) if is_tls else ()
    name = f"https://{address}:15009/_hbone/15003" if is_tls else url(address)
    trust = ("--ca-file", str(folder / "root.pem")) if is_tls else ()
    with target(address, ends), server(address, *flags) as hboned, forward(address, name, *trust) as (hbone, port):
        yield port
        for running in (hbone, hboned):
            assert "Traceback" not in running.stderr
            assert running.terminate() == 0


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("is_tls", [False, True], ids=["h2c", "tls"])
def test_no_byte_is_lost_and_what_breaks_never_looks_whole(
    address: str, authority: Authority, tmp_path: Path, is_tls: bool
) -> None:
    ends = Ends()
    with tunnelled(address, ends, authority=authority, folder=tmp_path, is_tls=is_tls) as port:

        def run(seed: int) -> None:
            plan = Plan.of(seed)
            what = (seed, plan.order, plan.breaks, len(plan.up), len(plan.down))
            with connect(address, port) as connected:
                connected.settimeout(3 * processes.WAIT)
                connected.sendall(SEED.pack(seed))
                heard = converse(connected, plan, is_client=True)
            got = ends.wait(seed)
            if plan.breaks == "client":
                assert got in ("", digest(plan.up)) if not plan.up else got == "", what
            elif plan.breaks == "target":
                assert heard in ("", digest(plan.down)) if not plan.down else heard == "", what
            else:
                assert (got, heard) == (digest(plan.up), digest(plan.down)), what

        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(run, range(SCHEDULES)))
