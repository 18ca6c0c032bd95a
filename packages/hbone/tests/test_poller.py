"""Both pollers, the quick one and the one for systems without epoll: who is called, and who is not."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from hbone.poller import READ, WRITE, PortablePoller, new_loop, of_loop
from hbone.poller_epoll import EpollPoller

pytestmark = pytest.mark.loopback

LOOPS = {"epoll": new_loop, "portable": asyncio.SelectorEventLoop}


def within(kind: str, main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    with asyncio.Runner(loop_factory=LOOPS[kind]) as runner:
        runner.run(main())


@pytest.mark.parametrize("kind", LOOPS)
def test_file_that_is_ready_is_called_until_it_is_dropped(kind: str) -> None:
    async def main() -> None:
        poller = of_loop()
        assert isinstance(poller, PortablePoller) == (kind == "portable")
        assert of_loop() is poller
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ready = asyncio.Event()
            masks: list[int] = []

            def call(mask: int) -> None:
                masks.append(mask)
                poller.drop(ours.fileno())
                ready.set()

            poller.set(ours.fileno(), READ, call)
            await asyncio.sleep(0)
            assert masks == []
            theirs.send(b"x")
            async with asyncio.timeout(5):
                await ready.wait()
            await asyncio.sleep(0)
            poller.set(ours.fileno(), READ | WRITE, masks.append)
            poller.set(ours.fileno(), WRITE, call)
            ready.clear()
            async with asyncio.timeout(5):
                await ready.wait()
        assert [bool(mask & READ) for mask in masks] == [True, False]

    within(kind, main)


def test_number_that_is_given_anew_is_not_called_for_what_was_said_of_its_last_owner() -> None:
    async def main() -> None:
        poller = of_loop()
        pairs = [socket.socketpair() for _ in range(2)]
        heard: list[str] = []
        done = asyncio.Event()

        def first(_: int) -> None:
            """Both are ready in the same wait: the other's number goes to a quiet socket."""
            for ours, _ in pairs:
                poller.drop(ours.fileno())
            number = pairs[1][0].fileno()
            pairs[1][0].close()
            quiet.append(socket.socketpair())
            assert number in [end.fileno() for end in quiet[0]]
            poller.set(number, READ, lambda _: heard.append("the new owner"))
            asyncio.get_running_loop().call_later(0.05, done.set)

        quiet: list[tuple[socket.socket, socket.socket]] = []
        for _, theirs in pairs:
            theirs.send(b"x")
        for ours, _ in pairs:
            poller.set(ours.fileno(), READ, first)
        async with asyncio.timeout(5):
            await done.wait()
        assert heard == []
        for pair in (*pairs, *quiet):
            for end in pair:
                if end.fileno() >= 0:
                    poller.drop(end.fileno())
                end.close()

    within("epoll", main)


def test_call_that_raises_is_logged_once_and_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        poller = of_loop()
        with caplog.at_level(logging.ERROR):
            ours, theirs = socket.socketpair()
            other, another = socket.socketpair()
            with ours, theirs, other, another:
                done = asyncio.Event()

                def fail(_: int) -> None:
                    raise ValueError("a bug")

                poller.set(ours.fileno(), READ, fail)
                theirs.send(b"x")
                for _ in range(5):
                    await asyncio.sleep(0)
                poller.set(other.fileno(), WRITE, lambda _: done.set())
                async with asyncio.timeout(5):
                    await done.wait()
                poller.drop(other.fileno())
        assert [record.getMessage() for record in caplog.records] == ["a bug ended a connection"]

    within("epoll", main)


def test_timers_and_tasks_of_asyncio_have_their_turn_beside_a_file_that_is_always_ready() -> None:
    async def main() -> None:
        poller = of_loop()
        ours, theirs = socket.socketpair()
        with ours, theirs:
            poller.set(ours.fileno(), WRITE, lambda _: None)
            async with asyncio.timeout(5):
                await asyncio.sleep(0.01)
                await asyncio.to_thread(lambda: None)
            poller.drop(ours.fileno())

    within("epoll", main)


def test_asyncio_finds_what_it_has_registered_by_number_and_by_socket() -> None:
    loop = new_loop()
    here, there = socket.socketpair()
    with contextlib.closing(loop), here, there:
        poller = getattr(loop, "poller", None)
        assert isinstance(poller, EpollPoller)
        loop.add_reader(here, lambda: None)
        loop.add_reader(here, lambda: None)
        found = poller.get_map()
        assert found[here] == found[here.fileno()]
        assert here.fileno() in list(found)
        assert found.get(there) is None
        assert loop.remove_reader(here)
        assert found.get(here) is None


@pytest.mark.parametrize("kind", LOOPS)
def test_file_that_is_forgotten_and_closed_leaves_its_number_to_others(kind: str) -> None:
    async def main() -> None:
        poller = of_loop()
        ours, theirs = socket.socketpair()
        poller.set(ours.fileno(), READ, pytest.fail)
        theirs.send(b"x")
        number = ours.fileno()
        poller.forget(number)
        ours.close()
        theirs.close()
        ready = asyncio.Event()
        one, other = socket.socketpair()
        with one, other:
            assert number in (one.fileno(), other.fileno())  # the lowest free number
            again, its_peer = (one, other) if one.fileno() == number else (other, one)

            def call(_: int) -> None:
                poller.drop(number)
                ready.set()

            poller.set(again.fileno(), READ, call)
            its_peer.send(b"y")
            async with asyncio.timeout(30):
                await ready.wait()

    within(kind, main)
