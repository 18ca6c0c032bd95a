"""A bug in serving one connection ends that connection, which counts as open no longer; others are served."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine
from typing import Any, cast

import pytest

from hbone import poller
from hbone.client import Client
from hbone.poller import WRITE, Poller
from hgate.connection import Connection
from hgate.counts import BUG, Counts
from hgate.deadlines import Deadlines
from hgate.gate import Gate
from hgate.pipes import Pipe, Pipes
from hgate.raw import Raw
from hgate.routes import RouteTable, read_routes
from hgate.tokens import Tokens
from krun_testbed import load_generator

HELLO = load_generator.hello("b.demo.svc.cluster.local")
PEER = ("127.0.0.1", 1)


class Bug(Exception):
    """What nobody has thought of."""


class Faulty:
    """A client's socket that is read in vain."""

    def __init__(self, real: socket.socket) -> None:
        self.real = real

    def recv(self, size: int) -> bytes:
        if not self.real.recv(size, socket.MSG_PEEK):
            return b""
        raise Bug("secret")

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)


class NoPipes(Pipes):
    def take(self) -> Pipe | None:
        raise Bug("secret")


class BrokenClient:
    def carry(self, **_: object) -> None:
        raise Bug("secret")


def scene(work: Callable[[Poller], Coroutine[Any, Any, None]]) -> None:
    """Run it with the poller that workers have."""

    async def run() -> None:
        async with asyncio.timeout(30):
            await work(poller.of_loop())

    with asyncio.Runner(loop_factory=poller.new_loop) as runner:
        runner.run(run())


def pair() -> tuple[socket.socket, socket.socket]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    return ours, theirs


def gate(on: Poller, counts: Counts, *routes: str, client: object, ended: Callable[[], None]) -> Gate:
    table = RouteTable()
    table.set(read_routes(routes))
    return Gate(
        poller=on,
        table=table,
        tokens=Tokens(ask=lambda _: None),
        client=cast(Client, client),
        counts=counts,
        hello_timeout=30,
        start=asyncio.get_running_loop().create_task,
        ended=ended,
    )


def test_one_whose_hello_cannot_be_read_is_closed() -> None:
    async def work(on: Poller) -> None:
        counts, ended = Counts(), asyncio.Event()
        made = gate(on, counts, client=None, ended=ended.set)
        ours, theirs = pair()
        with theirs:
            made.hellos.take(Connection(cast(socket.socket, Faulty(ours)), PEER, counts=counts))
            assert len(made) == 1
            theirs.sendall(b"x")
            await ended.wait()
            assert is_closed(theirs)
        assert (len(made), counts.errors[BUG]) == (0, 1)

    scene(work)


def test_one_that_cannot_be_led_on_is_closed() -> None:
    async def work(on: Poller) -> None:
        counts, ended = Counts(), asyncio.Event()
        made = gate(on, counts, "b.demo=https://b.example", client=BrokenClient(), ended=ended.set)
        ours, theirs = pair()
        with theirs:
            made.take(ours, PEER)
            theirs.sendall(HELLO)
            await ended.wait()
            assert is_closed(theirs)
        assert (len(made), counts.open_tunnels, counts.errors[BUG]) == (0, 0, 1)

    scene(work)


def test_one_whose_bytes_cannot_be_carried_is_closed_on_both_sides() -> None:
    async def work(on: Poller) -> None:
        counts, ended = Counts(), asyncio.Event()
        (client, ours), (dialled, workload) = pair(), pair()
        with client, workload:
            ours.setblocking(False)
            on.set(dialled.fileno(), WRITE, lambda _: None)
            raw = Raw(
                Connection(ours, PEER, counts=counts),
                dialled,
                poller=on,
                pipes=NoPipes(),
                over=lambda _: ended.set(),
            )
            raw.begin(b"first")
            client.sendall(b"second")
            await ended.wait()
            assert workload.recv(100) == b"first"
            assert is_closed(workload)
            assert is_closed(client)
        assert counts.errors[BUG] == 1

    scene(work)


def test_a_bug_at_a_deadline_keeps_no_other_from_its_own(caplog: pytest.LogCaptureFixture) -> None:
    async def work(on: Poller) -> None:
        passed: list[str] = []
        both = asyncio.Event()

        def late(text: str) -> None:
            passed.append(text)
            if text == "first":
                raise Bug("secret")
            both.set()

        deadlines = Deadlines[str](seconds=0.01, passed=late)
        deadlines.add("first")
        deadlines.add("second")
        await both.wait()
        assert passed == ["first", "second"]

    scene(work)
    assert [record.message for record in caplog.records] == ["a bug at a deadline"]
    assert "secret" not in str([record.__dict__ for record in caplog.records])


def is_closed(connected: socket.socket) -> bool:
    """Tell whether the other side has closed, waiting for it; nothing but that may be left to read."""
    connected.settimeout(30)
    try:
        return connected.recv(1) == b""
    except ConnectionError:
        return True
