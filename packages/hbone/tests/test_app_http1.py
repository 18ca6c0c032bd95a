"""Connections to the application: which of them may carry another request."""

from __future__ import annotations

import asyncio
import contextlib
import socket

import pytest

from hbone.app_http1 import Http1Connection, Http1Outbound
from hbone.message import Request

pytestmark = pytest.mark.loopback
UPLOAD = Request(method=b"PUT", path=b"/", authority=b"a", has_body=True)
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


async def exchanged(*, is_cut: bool) -> bool:
    """Whether the connection may be used again after an answer; ``is_cut``: the request has no end."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    connection = Http1Connection(ours)
    outbound = Http1Outbound(connection=connection, request=UPLOAD, released=lambda _: None)
    with ours, theirs:
        await outbound.begin()
        if is_cut:
            with contextlib.suppress(BlockingIOError):
                while True:  # until the kernel takes no more
                    ours.send(bytes(65536))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.05):
                    await outbound.finish(())
        else:
            await outbound.finish(())
        theirs.sendall(ANSWER)
        assert (await outbound.head()).status == 200
        assert await outbound.read() == b"ok"
        assert await outbound.read() == b""
        return connection.renew()


def test_connection_whose_request_and_answer_are_whole_is_used_again() -> None:
    assert asyncio.run(exchanged(is_cut=False))


def test_connection_in_which_a_request_was_given_up_within_a_write_is_not_used_again() -> None:
    assert not asyncio.run(exchanged(is_cut=True))


def test_connection_that_was_closed_or_says_something_unasked_is_not_quiet() -> None:
    for said in (b"", b"HTTP/1.1 408 Timeout\r\n\r\n"):
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with ours:
            connection = Http1Connection(ours)
            assert connection.is_quiet
            theirs.sendall(said)
            theirs.close()
            assert not connection.is_quiet
