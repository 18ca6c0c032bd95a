"""Requests on their way in, over a pair of sockets: a peer that pauses, a head that is half there."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest

from hbone import blocks, frames
from hbone.connection_http1 import ClientConnection
from hbone.events import StreamOpened
from hbone.inbound_http1 import Http1Inbound
from hbone.inbound_http2 import Http2Inbound
from hbone.link import Link
from hbone.message import Answer, Request
from hbone.offers import Refusal
from hbone.poller import of_loop
from hbone.session import Session
from hbone.stream import Stream
from hbone.tunnel import Connection
from hbone.wire import Wire
from hbone.work import Work

REQUEST = ((b":method", b"GET"),)
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
# SETTINGS and WINDOW_UPDATE: the peer's windows never hold an answer back.
GREETING = PREFACE + bytes((0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 4)) + (2**30).to_bytes(4, "big")
GREETING += bytes((0, 0, 4, 8, 0, 0, 0, 0, 0)) + (2**30).to_bytes(4, "big")
GET = Request(method=b"GET", path=b"/", authority=b"a")
STREAMS = 100
SIZE = 64 * 1024
Peer = Callable[[socket.socket], Coroutine[Any, Any, None]]


def opened(stream: int) -> bytes:
    return frames.headers(stream=stream, block=blocks.write(REQUEST), ends=True, size=frames.MAX_LENGTH)


def serving(serve: Callable[[Http2Inbound], Awaitable[None]], peer: Peer) -> Session:
    """Run a server's session whose requests are served so, until ``peer`` has left."""

    async def main() -> Session:
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        session = Session(link=Link(ours, poller=of_loop()), core=Connection(client=False), hello=20)

        async def one(stream: Stream) -> None:
            await serve(Http2Inbound(stream=stream, request=GET))

        with theirs:
            async with asyncio.timeout(20), asyncio.TaskGroup() as group:

                def begin(event: StreamOpened) -> Stream:
                    stream = Stream(session=session, number=event.stream)
                    group.create_task(one(stream))
                    return stream

                session.on_stream(begin)
                group.create_task(peer(theirs))
                await session.run()
                await session.close()
        return session

    return asyncio.run(main())


def pausing(size: int, began: asyncio.Event) -> Peer:
    """A peer that asks for many answers, and reads none before the last one has begun."""

    async def peer(theirs: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(theirs, GREETING + b"".join(opened(number) for number in range(1, 2 * STREAMS, 2)))
        await began.wait()
        left = size
        while left > 0 and (data := await loop.sock_recv(theirs, 2**20)):
            left -= len(data)
        theirs.shutdown(socket.SHUT_RDWR)

    return peer


@pytest.mark.loopback
def test_peer_that_pauses_gets_all_answers_however_many_there_are() -> None:
    began = asyncio.Event()
    count = 0

    async def serve(inbound: Http2Inbound) -> None:
        nonlocal count
        count += 1
        if count == STREAMS:
            began.set()
        await inbound.answer(Answer(status=200), bytes(SIZE), ends=True)

    assert serving(serve, pausing(STREAMS * SIZE, began)).fault == ""


@pytest.mark.loopback
def test_informations_wait_for_a_peer_that_pauses() -> None:
    began = asyncio.Event()
    count = 0
    link = Answer(status=103, fields=((b"link", b"a" * 8000),))

    async def serve(inbound: Http2Inbound) -> None:
        nonlocal count
        count += 1
        if count == STREAMS:
            began.set()
        for _ in range(10):
            await inbound.inform(link)

    assert serving(serve, pausing(STREAMS * 10 * 8000, began)).fault == ""


@pytest.mark.loopback
def test_request_whose_head_is_half_there_is_under_way() -> None:
    told: list[str] = []
    work = Work(idle=lambda: told.append("idle"))

    async def serve(inbound: Http1Inbound) -> None:
        assert told == []
        await inbound.refuse(Refusal(status=404, text="none\n"))

    async def main() -> bytes:
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader()
        wire = Wire(reader)
        transport, _ = await loop.connect_accepted_socket(lambda: wire, ours)
        writer = asyncio.StreamWriter(transport, wire, reader, loop)
        connection = ClientConnection(
            reader=reader, writer=writer, wire=wire, first=b"GET / HTTP/1.1\r\n", serve=serve, work=work
        )
        with theirs:
            async with asyncio.timeout(20), asyncio.TaskGroup() as group:
                group.create_task(connection.run())
                await asyncio.sleep(0)
                connection.drain()
                work.drain()
                await loop.sock_sendall(theirs, b"host: a\r\n\r\n")
                return await loop.sock_recv(theirs, 65536)

    assert asyncio.run(main()).startswith(b"HTTP/1.1 404")
    assert told == ["idle"]
