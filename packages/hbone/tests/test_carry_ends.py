"""Our client and our server, in process: who ends when, breaks off, or does not read; copied, spliced and by TLS."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
import socket
import ssl
import struct
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from hbone import tls
from hbone.buffers import Buffers
from hbone.client import Client, Settings
from hbone.conduit import Conduit, Unable
from hbone.ended import Ended
from hbone.offers import Offers
from hbone.poller import new_loop, of_loop
from hbone.server import Server
from hbone.server import Settings as ServerSettings
from hbone.stop import Stop
from hbone.tokens import Source
from hbone.urls import URL, Address, parse_url
from krun_testbed.certificates import Authority, write

pytestmark = pytest.mark.loopback

# How payload is carried; by a kernel, too, that splices no more from some time on.
KINDS = ["spliced", "copied", "spliced for a while", "tls"]
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close() sends a reset
TUNNELS = 6


class Place:
    """A server with a target behind it, and a client."""

    def __init__(self, *, client: Client, url: URL, target: socket.socket) -> None:
        self.client = client
        self.url = url
        self.target = target

    async def tunnel(self) -> Tunnel:
        """One tunnel, and the target's end of it."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            ours = socket.create_connection(listener.getsockname())
            local, _ = listener.accept()
        ours.setblocking(False)
        local.setblocking(False)
        ended: asyncio.Future[Ended] = asyncio.get_running_loop().create_future()
        self.client.carry(url=self.url, local=local, closed=ended.set_result)
        theirs, _ = await asyncio.get_running_loop().sock_accept(self.target)
        theirs.setblocking(False)
        return Tunnel(client=ours, server=theirs, ended=ended)


class Tunnel:
    """Both outer ends."""

    def __init__(self, *, client: socket.socket, server: socket.socket, ended: asyncio.Future[Ended]) -> None:
        self.ends = {"client": client, "server": server}
        self.ended = ended

    def close(self) -> None:
        for end in self.ends.values():
            end.close()


@contextlib.asynccontextmanager
async def place(address: str, folder: Path, *, is_tls: bool) -> AsyncIterator[Place]:
    context: ssl.SSLContext | None = None
    if is_tls:
        authority = Authority()
        pair = authority.server(hosts=("b.example",))
        for name, content in (("chain", pair.chain), ("key", pair.key), ("root", authority.root)):
            write(path=folder / name, content=content)
        context = tls.server_context(certificate=str(folder / "chain"), key=str(folder / "key"))
    stop = Stop()
    with socket.create_server((address, 0)) as target, socket.create_server((address, 0)) as listener:
        target.setblocking(False)
        listener.setblocking(False)
        port = listener.getsockname()[1]
        offers = Offers(ports={"22": target.getsockname()[1]})
        server = Server(
            settings=ServerSettings(bind=address, port=port, loopback=address, offers=offers, tls=context), stop=stop
        )
        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            group.create_task(server.serve(listener))
            settings = Settings(
                token_source=Source(),
                ca_file=str(folder / "root") if is_tls else None,
                connect_to=Address(host=address, port=port),
            )
            client = Client(settings=settings, group=group)
            yield Place(
                client=client,
                url=parse_url(f"{'https' if is_tls else 'http'}://b.example/_hbone/22"),
                target=target,
            )
            await client.close()
            stop.ask()


class Counted(Conduit):
    """It counts what it takes, and after some time it can no more."""

    def __init__(self, *, turns: int) -> None:
        super().__init__()
        self.taken = 0
        self.turns = turns

    def take(self, source: int, count: int) -> int:
        if not self.turns:
            self.is_able = False
            raise Unable
        self.turns -= 1
        taken = super().take(source, count)
        self.taken += taken
        return taken


def within(address: str, folder: Path, work: Callable[[Place], Awaitable[None]], *, kind: str = "spliced") -> int:
    """Run it; the bytes that were spliced."""

    async def main() -> int:
        buffers: Buffers = of_loop().buffers
        if buffers.conduit is not None:
            buffers.conduit = Counted(turns=20 if "while" in kind else -1)
        async with place(address, folder, is_tls=kind == "tls") as found:
            await work(found)
        return buffers.conduit.taken if isinstance(buffers.conduit, Counted) else 0

    with asyncio.Runner(loop_factory=lambda: new_loop(splices=kind != "copied")) as runner:
        return runner.run(main())


async def send(end: socket.socket, data: bytes, chance: random.Random, *, ends: bool) -> None:
    """All of it, in pieces of any size, with the loop's turn between some."""
    loop = asyncio.get_running_loop()
    at = 0
    while at < len(data):
        size = chance.choice((1, 17, 1000, 16_384, 70_000, 300_000))
        await loop.sock_sendall(end, data[at : at + size])
        at += size
        for _ in range(chance.randrange(3)):
            await asyncio.sleep(0)
    if ends:
        end.shutdown(socket.SHUT_WR)


async def read(end: socket.socket, chance: random.Random) -> bytes:
    loop = asyncio.get_running_loop()
    said = hashlib.sha256()
    while data := await loop.sock_recv(end, chance.choice((1000, 16_384, 200_000))):
        said.update(data)
        for _ in range(chance.randrange(3)):
            await asyncio.sleep(0)
    return said.digest()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("order", ["client first", "server first", "both at once", "each when it has read all"])
def test_no_byte_is_lost_whoever_ends_first(address: str, tmp_path: Path, order: str, kind: str) -> None:
    async def one(tunnel: Tunnel, seed: int) -> None:
        chance = random.Random(f"{order} {seed}")
        data = {name: chance.randbytes(chance.choice((0, 1, 5_000, 400_000, 900_000))) for name in tunnel.ends}
        first = {"client first": "client", "server first": "server"}.get(order, "")
        others = {"client": "server", "server": "client"}

        async def both(name: str) -> bytes:
            end = tunnel.ends[name]
            waits = (first and first != name) or (not first and order.startswith("each") and name == "server")
            async with asyncio.TaskGroup() as group:
                reading = group.create_task(read(end, chance))
                await send(end, data[name], chance, ends=not waits)
                if waits:  # the other's end comes before ours
                    await reading
                    end.shutdown(socket.SHUT_WR)
            return reading.result()

        async with asyncio.TaskGroup() as group:
            done = {name: group.create_task(both(name)) for name in tunnel.ends}
        for name, task in done.items():
            assert task.result() == hashlib.sha256(data[others[name]]).digest()
        ended = await tunnel.ended
        assert (ended.sent, ended.received) == (len(data["client"]), len(data["server"]))
        assert ended.is_orderly
        tunnel.close()

    async def work(found: Place) -> None:
        tunnels = [await found.tunnel() for _ in range(TUNNELS)]
        async with asyncio.TaskGroup() as group:
            for seed, tunnel in enumerate(tunnels):
                group.create_task(one(tunnel, seed))

    within(address, tmp_path, work, kind=kind)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("breaks", ["client", "server"])
def test_side_that_is_reset_is_reset_for_the_other_and_never_ended(
    address: str, tmp_path: Path, breaks: str, kind: str
) -> None:
    async def work(found: Place) -> None:
        loop = asyncio.get_running_loop()
        tunnel = await found.tunnel()
        other = tunnel.ends["server" if breaks == "client" else "client"]
        await loop.sock_sendall(tunnel.ends[breaks], b"half")
        assert await loop.sock_recv(other, 100) == b"half"
        tunnel.ends[breaks].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        tunnel.ends[breaks].close()
        with pytest.raises(ConnectionResetError):
            await loop.sock_recv(other, 100)
        assert not (await tunnel.ended).is_orderly
        tunnel.close()

    within(address, tmp_path, work, kind=kind)


@pytest.mark.parametrize("kind", ["spliced", "copied"])
@pytest.mark.parametrize("stalls", ["client", "server"])
def test_side_that_does_not_read_stops_its_sender_and_no_other_tunnel(
    address: str, tmp_path: Path, stalls: str, kind: str
) -> None:
    async def work(found: Place) -> None:
        loop = asyncio.get_running_loop()
        stalled, lively = await found.tunnel(), await found.tunnel()
        sender = stalled.ends["server" if stalls == "client" else "client"]
        sent = 0
        quiet = 0
        while quiet < 2000 and sent < 256 * 1024 * 1024:  # until nothing is taken any more
            try:
                sent += sender.send(bytes(65536))
                quiet = 0
            except BlockingIOError:
                quiet += 1
                await asyncio.sleep(0)
        assert sent < 64 * 1024 * 1024
        for _ in range(50):
            await loop.sock_sendall(lively.ends["client"], b"x" * 1000)
            got = 0
            while got < 1000:
                got += len(await loop.sock_recv(lively.ends["server"], 1000))
        # And when it reads again, nothing of it is missing.
        reading = stalled.ends[stalls]
        sender.shutdown(socket.SHUT_WR)
        got = 0
        while data := await loop.sock_recv(reading, 1024 * 1024):
            got += len(data)
        assert got == sent
        for tunnel in (stalled, lively):
            tunnel.close()

    assert bool(within(address, tmp_path, work, kind=kind)) == (kind == "spliced")


@pytest.mark.skipif(sys.platform != "linux", reason="nothing else splices")
def test_nearly_all_of_a_long_transfer_is_never_in_memory(address: str, tmp_path: Path) -> None:
    size = 64 * 1024 * 1024

    async def work(found: Place) -> None:
        tunnel = await found.tunnel()
        chance = random.Random(1)
        piece = chance.randbytes(512 * 1024)

        async def speak() -> None:
            for _ in range(size // len(piece)):
                await asyncio.get_running_loop().sock_sendall(tunnel.ends["server"], piece)
            tunnel.ends["server"].shutdown(socket.SHUT_WR)

        async with asyncio.TaskGroup() as group:
            group.create_task(speak())
            reading = group.create_task(read(tunnel.ends["client"], chance))
        assert reading.result() == hashlib.sha256(piece * (size // len(piece))).digest()
        tunnel.close()

    assert within(address, tmp_path, work) > 2 * size * 0.5  # by both ends
