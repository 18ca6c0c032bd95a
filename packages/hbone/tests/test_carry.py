"""The client's quick way, in process, against a server of the core's own: what is carried, refused, tried again."""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
from collections.abc import Awaitable, Callable

import pytest

from hbone import frames
from hbone.client import Client, Settings
from hbone.ended import Ended
from hbone.errors import DeadlinePassed, Denied, Misconfigured, Unreachable
from hbone.events import DataReceived, Event, StreamEnded, StreamOpened
from hbone.stop import run
from hbone.tokens import Source
from hbone.tunnel import REFUSED_STREAM, Connection
from hbone.urls import URL, parse_url

pytestmark = pytest.mark.loopback

Answer = Callable[[Connection, Event], None]
RANDOM = os.urandom(3 * 1024 * 1024)


class Tunnel:
    """One carry: the application's end of it, and how it ended."""

    def __init__(self, client: Client, url: URL, *, first: bytes = b"", **named: object) -> None:
        self.app, self.local = socket.socketpair()
        self.app.setblocking(False)
        self.local.setblocking(False)
        self.ended: asyncio.Future[Ended] = asyncio.get_running_loop().create_future()
        self.handle = client.carry(url=url, local=self.local, first=first, closed=self.ended.set_result, **named)  # type: ignore[arg-type]
        assert not self.ended.done()

    async def read_all(self) -> bytes:
        said = bytearray()
        while data := await asyncio.get_running_loop().sock_recv(self.app, 65536):
            said += data
        return bytes(said)

    async def failed(self) -> Ended:
        """How it ended without a tunnel; the local end is as it was."""
        async with asyncio.timeout(10):
            ended = await self.ended
        assert ended.failure is not None
        assert (ended.sent, ended.received) == (0, 0)
        self.local.send(b"still open")
        assert self.app.recv(100) == b"still open"
        self.close()
        return ended

    def close(self) -> None:
        self.app.close()
        self.local.close()


def echo(core: Connection, event: Event) -> None:
    if isinstance(event, StreamOpened):
        core.respond(event.stream, 200)
    elif isinstance(event, DataReceived):
        core.send(event.stream, event.data)
        core.acknowledge(event.stream, len(event.data))
    elif isinstance(event, StreamEnded):
        core.end(event.stream)


def served(
    address: str,
    answer: Answer,
    work: Callable[[Client, URL], Awaitable[None]],
    *,
    announced: int = 100,
    settings: Settings | None = None,
) -> int:
    """Run ``work`` with a client and the URL of a server that answers events so; count its connections."""
    connections = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        core = Connection(client=False, max_streams=100)
        limit = (
            frames.header(length=6, kind=frames.SETTINGS, flags=0, stream=0) + b"\0\3" + announced.to_bytes(4, "big")
        )
        writer.write(core.data_to_send() + limit)
        while data := await reader.read(65536):
            for event in core.receive(data):
                answer(core, event)
            writer.write(core.data_to_send())
            await writer.drain()
        writer.close()

    async def main() -> int:
        async with await asyncio.start_server(serve, address, 0) as server, asyncio.TaskGroup() as group:
            client = Client(settings=settings or Settings(token_source=Source()), group=group)
            port = server.sockets[0].getsockname()[1]
            async with asyncio.timeout(30):
                await work(client, parse_url(f"http://{address}:{port}/_hbone/22"))
            await client.close()
        return connections

    return run(main())


def test_bytes_go_both_ways_and_first_goes_first(address: str) -> None:
    async def work(client: Client, url: URL) -> None:
        tunnel = Tunnel(client, url, first=b"first ")
        loop = asyncio.get_running_loop()

        async def send() -> None:
            await loop.sock_sendall(tunnel.app, RANDOM)
            tunnel.app.shutdown(socket.SHUT_WR)

        said, _ = await asyncio.gather(tunnel.read_all(), send())
        assert hashlib.sha256(said).digest() == hashlib.sha256(b"first " + RANDOM).digest()
        ended = await tunnel.ended
        assert ended == Ended(
            reason="ended", sent=len(said), received=len(said), status=200, is_orderly=True, failure=None
        )
        tunnel.close()

    def hold(core: Connection, event: Event) -> None:
        """An echo that obeys the client's window."""
        if isinstance(event, DataReceived):
            waiting.setdefault(event.stream, bytearray()).extend(event.data)
            core.acknowledge(event.stream, len(event.data))
        elif isinstance(event, StreamOpened):
            core.respond(event.stream, 200)
        elif isinstance(event, StreamEnded):
            ends.add(event.stream)
        for stream, rest in waiting.items():
            count = min(core.window(stream), len(rest))
            core.send(stream, bytes(rest[:count]))
            del rest[:count]
        for stream in [stream for stream in ends if not waiting.get(stream)]:
            ends.discard(stream)
            core.end(stream)

    waiting: dict[int, bytearray] = {}
    ends: set[int] = set()
    served(address, hold, work)


def test_three_hundred_tunnels_at_once_use_three_connections(address: str) -> None:
    async def work(client: Client, url: URL) -> None:
        tunnels = [Tunnel(client, url, first=b"%04d" % number) for number in range(300)]
        loop = asyncio.get_running_loop()
        for number, tunnel in enumerate(tunnels):
            assert await loop.sock_recv(tunnel.app, 4) == b"%04d" % number
        for tunnel in tunnels:
            tunnel.app.close()
        for tunnel in tunnels:
            assert (await tunnel.ended).is_orderly

    assert served(address, echo, work) == 3


def test_streams_beyond_a_limit_that_was_not_known_yet_are_asked_for_elsewhere(address: str) -> None:
    async def work(client: Client, url: URL) -> None:
        tunnels = [Tunnel(client, url, first=b"%04d" % number) for number in range(64)]
        loop = asyncio.get_running_loop()
        for number, tunnel in enumerate(tunnels):
            assert await loop.sock_recv(tunnel.app, 4) == b"%04d" % number
        for tunnel in tunnels:
            tunnel.app.close()

    def strict(core: Connection, event: Event) -> None:
        if isinstance(event, StreamOpened) and len(core.open_streams) > 4:
            core.reset(event.stream, REFUSED_STREAM)
        else:
            echo(core, event)

    assert served(address, strict, work, announced=4) == 16


def test_server_that_takes_no_streams_is_not_dialled_for_ever(address: str) -> None:
    async def work(client: Client, url: URL) -> None:
        tunnels = [Tunnel(client, url) for _ in range(20)]
        failures = [(await tunnel.failed()).failure for tunnel in tunnels]
        assert any("takes no streams" in failure.message for failure in failures if failure)

    def refuse(core: Connection, event: Event) -> None:
        if isinstance(event, StreamOpened):
            core.reset(event.stream, REFUSED_STREAM)

    assert served(address, refuse, work, announced=0) <= 3


def test_refusal_says_status_and_text_and_leaves_the_local_end_alone(address: str) -> None:
    def refuse(core: Connection, event: Event) -> None:
        if isinstance(event, StreamOpened):
            core.respond(event.stream, 403, text="not you")

    async def work(client: Client, url: URL) -> None:
        ended = await Tunnel(client, url).failed()
        assert ended.status == 403
        assert isinstance(ended.failure, Denied)
        assert "not you" in ended.reason

    served(address, refuse, work)


def test_stream_that_is_refused_again_and_again_is_given_up(address: str) -> None:
    asked = 0

    def refuse(core: Connection, event: Event) -> None:
        nonlocal asked
        if isinstance(event, StreamOpened):
            asked += 1
            core.reset(event.stream, REFUSED_STREAM)

    async def work(client: Client, url: URL) -> None:
        ended = await Tunnel(client, url).failed()
        assert isinstance(ended.failure, Unreachable)

    served(address, refuse, work)
    assert asked == 4  # the first time, its limit was not known


def test_answer_that_never_comes_is_a_deadline_and_the_connection_is_not_used_again(address: str) -> None:
    async def work(client: Client, url: URL) -> None:
        for _ in range(2):
            ended = await Tunnel(client, url).failed()
            assert isinstance(ended.failure, DeadlinePassed)

    settings = Settings(token_source=Source(), answer_timeout=0.2)
    assert served(address, lambda core, event: None, work, settings=settings) == 2


def test_tokens_come_now_or_later_and_never_to_another_machine_without_tls(address: str) -> None:
    seen: list[bytes] = []

    def note(core: Connection, event: Event) -> None:
        if isinstance(event, StreamOpened):
            seen.append(dict(event.fields).get(b"authorization", b""))
        echo(core, event)

    async def later() -> str | None:
        await asyncio.sleep(0)
        return "b.b.b"

    async def nothing() -> str | None:
        raise Denied("no token", hint="ask")

    async def work(client: Client, url: URL) -> None:
        for token in ("a.a.a", lambda: "a.a.a", later, lambda: None, None):
            tunnel = Tunnel(client, url, token=token)
            tunnel.app.close()
            assert (await tunnel.ended).is_orderly
        assert isinstance((await Tunnel(client, url, token=nothing).failed()).failure, Denied)
        elsewhere = parse_url("http://b.example/_hbone/22")
        assert isinstance((await Tunnel(client, elsewhere, token="a.a.a").failed()).failure, Misconfigured)

    served(address, note, work)
    assert seen == [b"Bearer a.a.a", b"Bearer a.a.a", b"Bearer b.b.b", b"", b""]


def test_no_server_is_a_failure_for_all_who_wait(address: str) -> None:
    async def work(client: Client, url: URL) -> None:
        with socket.create_server((address, 0)) as closed:
            port = closed.getsockname()[1]
        nobody = parse_url(f"http://{address}:{port}/_hbone/22")
        for tunnel in [Tunnel(client, nobody) for _ in range(5)]:
            ended = await tunnel.failed()
            assert "Connection refused" in ended.reason

    served(address, echo, work)


def test_tunnel_that_is_ended_now_is_broken_for_its_local_end(address: str) -> None:
    async def work(client: Client, url: URL) -> None:
        tunnel = Tunnel(client, url, first=b"x")
        assert await asyncio.get_running_loop().sock_recv(tunnel.app, 1) == b"x"
        tunnel.handle.end_now()
        ended = await tunnel.ended
        assert (ended.is_orderly, ended.failure, ended.status) == (False, None, 200)
        tunnel.close()
        waiting = Tunnel(client, url)
        waiting.handle.end_now()
        assert isinstance((await waiting.failed()).failure, Unreachable)

    served(address, echo, work)
