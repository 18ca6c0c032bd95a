"""hgate reads the hellos of real clients, whole, in pieces and mutated: each is led on byte for byte, or ended."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from krun_testbed import hello_mutations, processes, tunnels
from krun_testbed.gateways import gate
from krun_testbed.hello_corpus import load
from krun_testbed.processes import Running

pytestmark = pytest.mark.loopback

CORPUS = load()
MESH = [caught for caught in CORPUS if caught.sni.endswith(".svc.cluster.local")]
OTHERS = [caught for caught in CORPUS if caught not in MESH]
MUTATED = 20_000 if os.environ.get("KRUN_SOAK") else 300


class Target:
    """Behind the gate: takes what comes to the end, and sends it back."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.taken: list[bytes] = []

    def __call__(self, connected: socket.socket) -> None:
        data = tunnels.read_all(connected)
        with self._lock:
            self.taken.append(data)
        connected.sendall(data)


@contextlib.contextmanager
def led(address: str, *flags: str) -> Iterator[tuple[Running, Target]]:
    """A gate that leads b.demo on as it is."""
    target = Target()
    with (
        tunnels.target(address, target) as port,
        gate(address, *flags, route=f"b.demo=tcp://{address}:{port}") as hgate,
    ):
        yield hgate, target


def exchanged(address: str, pieces: list[bytes]) -> bytes:
    """What comes back for these pieces and the end; nothing when it is reset."""
    with tunnels.connect(address, 15442) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            for piece in pieces:
                client.sendall(piece)
            client.shutdown(socket.SHUT_WR)
            return tunnels.read_all(client)
        except (ConnectionResetError, BrokenPipeError):
            return b""
        except OSError as error:
            if error.errno != errno.ENOTCONN:  # which shutdown says after a reset
                raise
            return b""


def memory(hgate: Running) -> int:
    """KiB that the gate and its workers hold by themselves."""
    total = 0
    for pid in (hgate.pid, *processes.children(hgate.pid)):
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8").splitlines()
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))
    return total


def ends(hgate: Running) -> list[dict[str, object]]:
    """The lines of connections that are over."""
    messages = ("connection closed", "connection refused", "connection failed", "a bug ended a connection")
    return [line for message in messages for line in tunnels.lines(hgate, message)]


def test_real_hellos_are_led_on_byte_for_byte(address: str) -> None:
    random = Random(1)
    with led(address) as (hgate, target):
        for caught in MESH:
            data = caught.data + b"\x14\x03\x03\x00\x01\x01" + random.randbytes(3000)
            assert exchanged(address, [data]) == data
            assert exchanged(address, hello_mutations.pieces(random, data)) == data
        assert len(target.taken) == 2 * len(MESH)
        processes.wait_until(
            lambda: len(tunnels.lines(hgate, "connection closed")) == 2 * len(MESH), what="a line for each"
        )
        assert {str(line["sni"]) for line in tunnels.lines(hgate, "connection closed")} == {one.sni for one in MESH}


def test_real_hellos_byte_by_byte_and_over_many_records_are_led_on(address: str) -> None:
    with led(address):
        for caught in MESH:
            data = hello_mutations.in_records(hello_mutations.message_of(caught.data), [1, 4, 40] * 20)
            assert exchanged(address, [bytes([byte]) for byte in data]) == data


def test_hellos_that_name_no_service_are_ended_with_one_line(address: str) -> None:
    with led(address) as (hgate, target):
        for caught in OTHERS:
            assert exchanged(address, [caught.data]) == b""
        processes.wait_until(lambda: len(ends(hgate)) == len(OTHERS), what="a line for each")
        told = {(line["message"], line["sni"], line["reason"]) for line in ends(hgate)}
        names = {caught.sni for caught in OTHERS}
        assert names == {"", "192.0.2.7", "ech.example"}
        reasons = {name: "not the name of a service" if name else "no server name" for name in names}
        assert told == {("connection refused", name, reason) for name, reason in reasons.items()}
        assert target.taken == []


def test_junk_of_64_kib_is_ended_and_costs_no_memory(address: str) -> None:
    random = Random(2)
    starts = (b"", b"\x16\x03\x01\x40\x00\x01\x00\x3f\xf0")
    # One worker: of two, the other may see its first connection, and grow by what that takes, only after "before".
    with led(address, "--workers", "1") as (hgate, target):
        for start in starts:
            exchanged(address, [start + random.randbytes(65536)])
        before = memory(hgate)
        for number in range(200):
            assert exchanged(address, [starts[number % 2] + random.randbytes(65536)]) == b""
        assert memory(hgate) - before < 2048
        assert exchanged(address, [MESH[0].data]) == MESH[0].data
        assert target.taken == [MESH[0].data]


def test_mutated_hellos_are_led_on_byte_for_byte_or_ended(address: str) -> None:
    random = Random(3)
    hellos = [caught.data for caught in CORPUS]
    with led(address) as (hgate, target):
        came_back = 0
        for number in range(MUTATED):
            data = hello_mutations.mutated(random, hellos)
            answer = exchanged(address, hello_mutations.pieces(random, data))
            assert answer in (b"", data), data.hex()
            came_back += bool(answer)
            if number == MUTATED // 2:
                before = memory(hgate)
        assert len(target.taken) == came_back
        assert 0 < came_back < MUTATED
        assert memory(hgate) - before < 2048
        for caught in MESH:
            assert exchanged(address, [caught.data]) == caught.data
        count = MUTATED + len(MESH)
        processes.wait_until(lambda: len(ends(hgate)) == count, what=f"{count} lines, one for each")
        assert "ERROR" not in {line["severity"] for line in ends(hgate)}
