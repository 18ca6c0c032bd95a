"""A connection's deadlines, in process: what a peer must say, and take, in time."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from hbone.allowance import Allowance
from hbone.link import Link
from hbone.poller import of_loop
from hbone.session import MAX_BACKLOG, Session
from hbone.stream import Stream
from hbone.tunnel import Connection

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
SETTINGS_ACK = bytes((0, 0, 0, 4, 1, 0, 0, 0, 0))
HELLO = 0.2


def serving(
    check: Callable[[Session, socket.socket], Coroutine[Any, Any, None]], *, max_backlog: int = MAX_BACKLOG
) -> Session:
    """Run a server's session over a pair of sockets until it ends; ``check`` is the peer."""

    async def main() -> Session:
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        link = Link(ours, poller=of_loop())
        core = Connection(client=False)
        session = Session(link=link, core=core, hello=HELLO, last_bytes=0.2, max_backlog=max_backlog)
        with theirs:
            async with asyncio.timeout(20), asyncio.TaskGroup() as group:
                group.create_task(check(session, theirs))
                await session.run()
                await session.close()
        return session

    return asyncio.run(main())


async def acknowledged(theirs: socket.socket) -> None:
    """Wait until our SETTINGS have been read."""
    said = b""
    while SETTINGS_ACK not in said:
        said += await asyncio.get_running_loop().sock_recv(theirs, 65536)


@pytest.mark.loopback
@pytest.mark.parametrize("said", [b"", b"P", PREFACE[:24], PREFACE[:-1]])
def test_peer_that_does_not_finish_its_beginning_is_cut_off_in_time(said: bytes) -> None:
    async def peer(_: Session, theirs: socket.socket) -> None:
        await asyncio.get_running_loop().sock_sendall(theirs, said)

    assert "did not begin HTTP/2 within 0.2 s" in serving(peer).fault


@pytest.mark.loopback
def test_peer_that_has_begun_may_be_silent() -> None:
    async def peer(_: Session, theirs: socket.socket) -> None:
        await asyncio.get_running_loop().sock_sendall(theirs, PREFACE)
        await acknowledged(theirs)
        with pytest.raises(TimeoutError):  # neither a word nor an end comes
            async with asyncio.timeout(2 * HELLO):
                await asyncio.get_running_loop().sock_recv(theirs, 1)
        theirs.shutdown(socket.SHUT_RDWR)

    assert serving(peer).fault == ""


@pytest.mark.loopback
def test_drained_connection_whose_peer_never_reads_ends_all_the_same() -> None:
    async def peer(session: Session, theirs: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(theirs, PREFACE)
        await acknowledged(theirs)
        while session.link.backlog == 0:  # more than the kernel takes
            await loop.sock_sendall(theirs, bytes((0, 0, 8, 6, 0, 0, 0, 0, 0)) + bytes(8))
            await asyncio.sleep(0)
        session.drain()

    assert serving(peer).fault == ""


@pytest.mark.loopback
def test_stream_that_we_reset_ends_who_waits_for_it() -> None:
    async def main() -> str:
        ours, theirs = socket.socketpair()
        session = Session(link=Link(ours, poller=of_loop()), core=Connection(client=True), hello=HELLO)
        stream: Stream = session.open(scheme="http", authority="b", path="/_hbone/22", headers=())
        with theirs:
            async with asyncio.timeout(5), asyncio.TaskGroup() as group:
                waiting = group.create_task(_broken(stream))
                await asyncio.sleep(0)
                stream.reset(8)
                reason = await waiting
            await session.close()
        return reason

    assert asyncio.run(main()) == "reset by us, error code 8"


async def _broken(stream: Stream) -> str:
    try:
        await stream.receive()
    except Exception as error:  # noqa: BLE001 - the test says which
        return str(error)
    return ""


def test_allowance_is_a_burst_and_so_many_a_second() -> None:
    allowance = Allowance(burst=3, per_second=2, now=0.0)
    assert [allowance.spend(now=0.0) for _ in range(4)] == [True, True, True, False]
    assert [allowance.spend(now=1.0) for _ in range(3)] == [True, True, False]
    assert [allowance.spend(now=100.0) for _ in range(4)] == [True, True, True, False]


@pytest.mark.loopback
def test_peer_that_leaves_answers_to_its_pings_unread_is_cut_off() -> None:
    ping = bytes((0, 0, 8, 6, 0, 0, 0, 0, 0)) + bytes(8)

    async def peer(session: Session, theirs: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        session.link.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        await loop.sock_sendall(theirs, PREFACE)
        await acknowledged(theirs)
        with contextlib.suppress(ConnectionError):
            for _ in range(90):  # fewer than are a flood
                await loop.sock_sendall(theirs, ping * 100)
                await asyncio.sleep(0)

    assert serving(peer, max_backlog=8192).fault == "the peer does not read"
