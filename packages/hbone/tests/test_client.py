"""The client's deadlines and its pool, in process, against sockets that behave badly."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from hbone.client import Client, Settings
from hbone.errors import DeadlinePassed, Failure, Unreachable
from hbone.events import StreamOpened
from hbone.stop import run
from hbone.stream import Stream
from hbone.tokens import Source
from hbone.tunnel import NO_ERROR, REFUSED_STREAM, Connection
from hbone.urls import parse_url

pytestmark = pytest.mark.loopback


@contextlib.asynccontextmanager
async def opening(settings: Settings) -> AsyncIterator[Client]:
    async with asyncio.TaskGroup() as group:
        client = Client(settings=settings, group=group)
        try:
            yield client
        finally:
            await client.close()


def settings(*, connect_timeout: float = 5.0, answer_timeout: float = 5.0) -> Settings:
    return Settings(token_source=Source(), connect_timeout=connect_timeout, answer_timeout=answer_timeout)


def failing(url: str, with_settings: Settings) -> Failure:
    async def main() -> int:
        async with opening(with_settings) as client:
            await client.open(parse_url(url))
        return 0

    with pytest.raises(Failure) as caught:
        run(main())
    assert caught.value.hint
    return caught.value


def test_handshake_that_never_ends_is_a_deadline_that_says_what_was_waited_for(address: str) -> None:
    with socket.create_server((address, 0)) as silent:
        port = silent.getsockname()[1]
        error = failing(f"https://{address}:{port}/_hbone/22", settings(connect_timeout=0.2))
    assert isinstance(error, DeadlinePassed)
    assert f"{address}:{port}" in error.message
    assert "0.2 s" in error.message


def test_answer_that_never_comes_is_a_deadline(address: str) -> None:
    with socket.create_server((address, 0)) as silent:
        port = silent.getsockname()[1]
        error = failing(f"http://{address}:{port}/_hbone/22", settings(answer_timeout=0.2))
    assert isinstance(error, DeadlinePassed | Unreachable)
    assert "0.2 s" in error.message


Answer = Callable[[Connection, int], None]


async def served(
    address: str, answer: Answer, work: Callable[[Client, int], Awaitable[None]], *, answer_timeout: float = 5.0
) -> int:
    """Run ``work`` with a client and the port of a server that answers each stream as told; count its connections."""
    connections = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        core = Connection(client=False, max_streams=2)
        writer.write(core.data_to_send())
        while data := await reader.read(65536):
            for event in core.receive(data):
                if isinstance(event, StreamOpened):
                    answer(core, event.stream)
            writer.write(core.data_to_send())
        writer.close()

    async with (
        await asyncio.start_server(serve, address, 0) as server,
        opening(settings(answer_timeout=answer_timeout)) as client,
    ):
        await work(client, server.sockets[0].getsockname()[1])
    return connections


def accept(core: Connection, stream: int) -> None:
    core.respond(stream, 200)


def test_limit_of_streams_is_obeyed_by_a_further_connection(address: str) -> None:
    async def work(client: Client, port: int) -> None:
        url = parse_url(f"http://{address}:{port}/_hbone/22")
        streams: list[Stream] = [await client.open(url) for _ in range(7)]
        assert len({id(stream) for stream in streams}) == 7

    assert asyncio.run(served(address, accept, work)) == 4


def test_room_of_tunnels_that_ended_is_used_again(address: str) -> None:
    async def work(client: Client, port: int) -> None:
        url = parse_url(f"http://{address}:{port}/_hbone/22")
        for _ in range(7):
            stream = await client.open(url)
            stream.release()

    assert asyncio.run(served(address, accept, work)) == 1


def test_connection_without_an_answer_in_time_is_not_used_again(address: str) -> None:
    async def work(client: Client, port: int) -> None:
        for _ in range(2):
            with pytest.raises(DeadlinePassed):
                await client.open(parse_url(f"http://{address}:{port}/_hbone/22"))

    assert asyncio.run(served(address, lambda core, stream: None, work, answer_timeout=0.2)) == 2


def test_refused_stream_is_asked_for_again(address: str) -> None:
    refused: list[int] = []

    def refuse_first(core: Connection, stream: int) -> None:
        if not refused:
            refused.append(stream)
            core.reset(stream, REFUSED_STREAM)
        else:
            core.respond(stream, 200)

    async def work(client: Client, port: int) -> None:
        await client.open(parse_url(f"http://{address}:{port}/_hbone/22"))

    asyncio.run(served(address, refuse_first, work))
    assert refused


def test_server_that_refuses_for_ever_is_not_asked_for_ever(address: str) -> None:
    asked: list[int] = []

    def refuse(core: Connection, stream: int) -> None:
        asked.append(stream)
        core.reset(stream, REFUSED_STREAM)

    async def work(client: Client, port: int) -> None:
        with pytest.raises(Unreachable):
            await client.open(parse_url(f"http://{address}:{port}/_hbone/22"))

    asyncio.run(served(address, refuse, work))
    assert len(asked) == 3


def test_end_of_the_answer_and_no_error_reset_is_an_end(address: str) -> None:
    # RFC 9113 §8.1: a server that has answered whole may ask so for the rest of the request not to be sent.
    def answer_whole(core: Connection, stream: int) -> None:
        core.respond(stream, 200)
        core.send(stream, b"all")
        core.end(stream)
        core.reset(stream, NO_ERROR)

    async def work(client: Client, port: int) -> None:
        stream = await client.open(parse_url(f"http://{address}:{port}/_hbone/22"))
        assert await stream.receive() == b"all"
        assert await stream.receive() == b""

    asyncio.run(served(address, answer_whole, work))


def test_draining_server_gets_no_new_tunnel(address: str) -> None:
    def accept_once(core: Connection, stream: int) -> None:
        core.respond(stream, 200)
        core.drain()

    async def work(client: Client, port: int) -> None:
        url = parse_url(f"http://{address}:{port}/_hbone/22")
        for _ in range(3):
            await client.open(url)

    # The GOAWAY comes with the answer, and is read with it.
    assert asyncio.run(served(address, accept_once, work)) == 3
