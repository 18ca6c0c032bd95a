"""Clients that say half a hello and stay: they cost nothing, others are served as if they were not there."""

from __future__ import annotations

import contextlib
import os
import resource
import selectors
import socket
import statistics
import time
from collections import Counter
from collections.abc import Iterator

import pytest

from krun_testbed import processes, tunnels
from krun_testbed.addresses import loopback
from krun_testbed.gateways import gate
from krun_testbed.hello_corpus import load
from krun_testbed.load_systems import System, cpu
from krun_testbed.processes import Running

pytestmark = pytest.mark.loopback

HELLO = next(caught for caught in load() if caught.name == "envoy").data
# Nothing, a byte, a record's head, half of the first segment, all but a byte.
STARTS = [HELLO[:0], HELLO[:1], HELLO[:5], HELLO[:700], HELLO[:-1]]
SLOW = 2000
CROWD = 4096  # of one worker
ROUNDS = 30 if os.environ.get("KRUN_SOAK") else 7


@pytest.fixture(autouse=True)
def _many_files() -> Iterator[None]:
    """More files than most processes may have: as many as the system allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextlib.contextmanager
def led(address: str, *flags: str) -> Iterator[Running]:
    """A gate that leads b.demo to an echo."""
    with (
        tunnels.target(address, tunnels.echo) as port,
        gate(address, *flags, route=f"b.demo=tcp://{address}:{port}") as hgate,
    ):
        yield hgate


@contextlib.contextmanager
def slow(address: str, count: int) -> Iterator[list[socket.socket]]:
    """So many connections, each with the start of a hello."""
    with contextlib.ExitStack() as stack:
        found = []
        for number in range(count):
            found.append(stack.enter_context(tunnels.connect(address, 15442)))
            found[-1].sendall(STARTS[number % len(STARTS)])
        yield found


def ended(connections: list[socket.socket], *, seconds: float) -> int:
    """How many of them the gate ends within that time; no later than it ends the last."""
    count = 0
    with selectors.DefaultSelector() as selector:
        for connected in connections:
            selector.register(connected, selectors.EVENT_READ)
        while selector.get_map() and (ready := selector.select(seconds)):
            for key, _ in ready:
                selector.unregister(key.fileobj)
                count += 1
    return count


def served(address: str, *, count: int = 40) -> float:
    """Seconds from connecting to the hello's echo, the median of some connections one after the other."""
    taken = []
    for _ in range(count):
        started = time.monotonic()
        with tunnels.connect(address, 15442) as client:
            client.sendall(HELLO)
            assert client.recv(len(HELLO), socket.MSG_WAITALL) == HELLO
            taken.append(time.monotonic() - started)
    return statistics.median(taken)


def test_two_thousand_that_stay_cost_no_cpu_and_others_no_time(address: str) -> None:
    free = loopback()
    with led(address, "--hello-timeout", "60") as hgate, led(free), slow(address, SLOW) as connections:
        served(address)  # and by then the gate has read what the others have said
        system = System(name="hgate", echo="", sink="", source="", running=[hgate])
        before = cpu(system)
        assert ended(connections, seconds=2.0) == 0
        assert cpu(system) - before <= 0.1
        ratios = [served(address) / served(free) for _ in range(ROUNDS)]
        assert statistics.median(ratios) < 1.5, ratios


def test_two_thousand_that_say_a_byte_now_and_then_leave_room_for_others(address: str) -> None:
    with led(address, "--hello-timeout", "60") as hgate, slow(address, SLOW) as connections:
        waiting = [connected for number, connected in enumerate(connections) if STARTS[number % 5] == HELLO[:700]]
        system = System(name="hgate", echo="", sink="", source="", running=[hgate])
        before = cpu(system)
        count = 0
        for at in range(700, 740):
            for connected in waiting:
                connected.sendall(HELLO[at : at + 1])
                count += 1
            served(address, count=1)
        # Each byte wakes the gate: what it does then does not grow with what it has, or with how many there are.
        assert (cpu(system) - before) / count < 500e-6


def test_all_are_ended_in_time_with_a_line_each_and_the_gate_is_as_before(address: str) -> None:
    with led(address, "--hello-timeout", "3") as hgate:
        with slow(address, SLOW) as connections:
            assert ended(connections, seconds=processes.WAIT) == SLOW
        processes.wait_until(lambda: len(tunnels.lines(hgate, "connection refused")) == SLOW, what="a line for each")
        reasons = Counter(str(line["reason"]) for line in tunnels.lines(hgate, "connection refused"))
        assert reasons == {"no whole ClientHello within 3 s": SLOW}
        served(address, count=1)


def test_when_more_wait_than_a_worker_holds_the_oldest_go_and_others_are_served(address: str) -> None:
    more = 100
    with led(address, "--hello-timeout", "60", "--workers", "1") as hgate, slow(address, CROWD + more) as connections:
        oldest, newest = connections[:more], connections[more:]
        assert ended(oldest, seconds=processes.WAIT) == more
        assert ended(newest, seconds=0.2) == 0
        processes.wait_until(lambda: len(tunnels.lines(hgate, "connection refused")) == more, what="a line for each")
        reasons = {str(line["reason"]) for line in tunnels.lines(hgate, "connection refused")}
        assert reasons == {f"{CROWD + 1} connections wait with half a ClientHello"}
        served(address, count=1)  # which waits, too, for a moment: one more may have to go
        assert ended(newest, seconds=0.2) <= 1
