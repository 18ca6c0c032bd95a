"""The core against what somebody has altered: it ends or goes on, and neither raises nor grows."""

from __future__ import annotations

import gc
import os
import random
import time
from pathlib import Path

import pytest

from hbone import frames
from hbone.events import ConnectionEnded, StreamOpened
from hbone.tunnel import CANCEL, MAX_STREAMS, Connection

COUNT = 500_000 if os.environ.get("KRUN_SOAK") else 1_500  # for each side
GROWTH = 4 * 1024 * 1024  # bytes, after the first tenth of them
LONGEST = 1.0  # seconds of CPU for one sequence, which takes a millisecond


def lives() -> tuple[bytes, bytes]:
    """All that a client and a server say in a small life: tunnels, payload, ends, a reset, a goodbye."""
    client, server = Connection(client=True), Connection(client=False)
    up, down = bytearray(), bytearray()

    def carry() -> None:
        for _ in range(3):
            said = client.data_to_send()
            up.extend(said)
            for event in server.receive(said):
                if isinstance(event, StreamOpened):
                    server.respond(event.stream, 200)
            said = server.data_to_send()
            down.extend(said)
            client.receive(said)

    streams = [client.open(scheme="http", authority="b", path="/_hbone/22", headers=[("x", "y")]) for _ in range(3)]
    carry()
    for stream in streams:
        client.send(stream, b"up" * 200)
        server.send(stream, b"down" * 200)
    carry()
    client.end(streams[0])
    server.end(streams[0], ((b"t", b"1"),))
    client.reset(streams[1], CANCEL)
    server.acknowledge(streams[2], 400)
    server.drain()
    carry()
    client.close()
    carry()
    return bytes(up), bytes(down)


def split(data: bytes, *, start: int) -> list[bytes]:
    found = [data[:start]] if start else []
    at = start
    while at < len(data):
        end = at + frames.HEADER_LENGTH + int.from_bytes(data[at : at + 3], "big")
        found.append(data[at:end])
        at = end
    return found


def mutated(pieces: list[bytes], chance: random.Random) -> bytes:
    pieces = list(pieces)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(pieces))
        match chance.randrange(6):
            case 0:
                del pieces[at]
                if not pieces:
                    pieces = [b""]
            case 1:
                pieces.insert(at, pieces[chance.randrange(len(pieces))])
            case 2:
                chance.shuffle(pieces)
            case 3:
                kind, flags = chance.randrange(11), chance.randrange(256)
                stream = chance.choice((0, 1, 2, 3, 5, 7, 2**31 - 1))
                body = chance.randbytes(chance.choice((0, 1, 4, 5, 6, 8, 30)))
                pieces.insert(at, frames.header(length=len(body), kind=kind, flags=flags, stream=stream) + body)
            case _:
                piece = bytearray(pieces[at])
                for _ in range(chance.randint(1, 3)):
                    if piece:
                        piece[chance.randrange(len(piece))] = chance.choice((0, 1, 8, 255, chance.randrange(256)))
                pieces[at] = bytes(piece)
    return b"".join(pieces)


def resident() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize("is_client", [False, True], ids=["server", "client"])
def test_altered_frames_in_any_order_raise_nothing_and_fill_nothing(is_client: bool) -> None:
    up, down = lives()
    pieces = split(down, start=0) if is_client else split(up, start=frames.PREFACE_LENGTH)
    ended = warm = 0
    longest = 0.0
    for seed in range(COUNT):
        if seed == COUNT // 10:
            warm = resident()
        began = time.process_time()
        chance = random.Random(seed)
        data = mutated(pieces, chance)
        core = Connection(client=is_client)
        if is_client:
            for _ in range(3):
                core.open(scheme="http", authority="b", path="/_hbone/22")
        at = 0
        while at < len(data):
            size = chance.choice((1, 9, 100, len(data)))
            for event in core.receive(memoryview(data)[at : at + size]):
                ended += isinstance(event, ConnectionEnded)
            at += size
        assert len(core.open_streams) <= MAX_STREAMS
        assert len(core.data_to_send()) < 64 * len(data) + 1000, seed
        core.close()
        assert not core.open_streams
        longest = max(longest, time.process_time() - began)
    grown = resident() - warm
    print(
        f"{COUNT} sequences: {grown / 1024:.0f} KiB more than after a tenth, the longest took {longest * 1000:.1f} ms"
    )
    assert COUNT // 20 < ended < COUNT  # some of each
    assert grown < GROWTH
    assert longest < LONGEST
