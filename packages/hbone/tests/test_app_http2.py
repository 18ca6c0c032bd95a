"""Requests to an application that speaks HTTP/2 and reads nothing for a while."""

from __future__ import annotations

import asyncio
import socket

import pytest

from hbone.app_http2 import Http2Pool
from hbone.events import StreamOpened
from hbone.inbound_http2 import Http2Inbound
from hbone.link import Link
from hbone.message import Answer, Request
from hbone.poller import of_loop
from hbone.session import Session
from hbone.stream import Stream
from hbone.tunnel import MAX_STREAMS, Connection

pytestmark = pytest.mark.loopback

BODY = bytes(16 * 1024)
POST = Request(method=b"POST", path=b"/", authority=b"a", length=len(BODY), has_body=True)


async def serve(stream: Stream) -> None:
    await Http2Inbound(stream=stream, request=POST).answer(Answer(status=200), b"", ends=True)


async def answered(pool: Http2Pool) -> int:
    outbound = await pool.open(POST, is_fresh=False)
    try:
        await outbound.begin(BODY)
        return (await outbound.head()).status
    finally:
        outbound.release()


def test_application_that_reads_nothing_for_a_while_gets_all_requests_in_the_end() -> None:
    """More than sockets and windows hold, at once: no request is lost with its connection."""

    async def main() -> list[int]:
        listener = socket.create_server(("127.0.0.1", 0))
        listener.setblocking(False)
        loop = asyncio.get_running_loop()
        with listener:
            async with asyncio.timeout(60), asyncio.TaskGroup() as group:
                pool = Http2Pool(address="127.0.0.1", port=listener.getsockname()[1], group=group)
                first = group.create_task(answered(pool))
                connected, _ = await loop.sock_accept(listener)
                link = Link(connected, poller=of_loop())
                session = Session(link=link, core=Connection(client=False), hello=20)

                def opened(event: StreamOpened) -> Stream:
                    stream = Stream(session=session, number=event.stream)
                    group.create_task(serve(stream))
                    return stream

                session.on_stream(opened)
                app = group.create_task(session.run())
                assert await first == 200
                link.stop()
                others = []
                for _ in range(9):
                    others += [group.create_task(answered(pool)) for _ in range(MAX_STREAMS // 10)]
                    for _ in range(100):  # until whatever can be written without waiting has been
                        await asyncio.sleep(0)
                link.go_on()
                statuses = [await other for other in others]
                await pool.close()
                await session.close()
                await app
        return statuses

    assert set(asyncio.run(main())) == {200}
