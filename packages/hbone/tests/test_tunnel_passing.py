"""The core when long payload goes another way than through it: cut anywhere, nothing is lost, doubled or misplaced."""

from __future__ import annotations

import os
import random
from collections import defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hbone import frames
from hbone.conduit import Conduit
from hbone.cutter import LONG
from hbone.events import ConnectionEnded, DataReceived, Event, StreamEnded, StreamOpened, StreamReset
from hbone.frames import DATA, END_STREAM, PADDED
from hbone.tunnel import WIDE_WINDOW, Connection

PIECES = st.lists(
    st.tuples(
        st.booleans(),  # of the first stream
        st.integers(0, 120_000),  # bytes of payload
        st.sampled_from([None, None, 0, 255]),  # of padding
        st.booleans(),  # a control frame behind it
    ),
    max_size=12,
)


class Taker:
    """Says that a stream's payload may go another way."""

    def pass_on(self, source: int, conduit: Conduit, count: int) -> int:
        raise NotImplementedError


class Server:
    """It takes what is long from the wire itself, as a socket is spliced, when chance has it."""

    def __init__(self, chance: random.Random) -> None:
        self.core = Connection(client=False, stream_window=WIDE_WINDOW)
        self.wire = bytearray()
        self.got: dict[int, bytearray] = defaultdict(bytearray)
        self.ended: list[int] = []
        self.passed = 0
        self._chance = chance

    def take_all(self) -> None:
        while self.wire:
            flow, left = self.core.long
            if flow is not None and flow.passer is not None and left and self._chance.random() < 0.8:
                count = min(self._chance.randint(1, left), len(self.wire))
                self.got[flow.number] += self.wire[:count]
                del self.wire[:count]
                self.passed += count
                self.report(self.core.skip(count))
                continue
            count = self.core.until_header if self._chance.random() < 0.5 else self._chance.randint(1, 100_000)
            data = self.wire[:count]
            del self.wire[:count]
            self.report(self.core.receive(data))

    def report(self, events: list[Event]) -> None:
        for event in events:
            match event:
                case StreamOpened(flow=flow):
                    flow.passer = Taker()
                case DataReceived(stream=stream):
                    assert stream not in self.ended
                    self.got[stream] += event.data
                case StreamEnded(stream=stream):
                    self.ended.append(stream)
                case StreamReset() | ConnectionEnded():
                    pytest.fail(repr(event))


def frame(stream: int, payload: bytes, *, padding: int | None, ends: bool) -> bytes:
    flags = END_STREAM if ends else 0
    if padding is None:
        return frames.header(length=len(payload), kind=DATA, flags=flags, stream=stream) + payload
    header = frames.header(length=len(payload) + padding + 1, kind=DATA, flags=flags | PADDED, stream=stream)
    return header + bytes((padding,)) + payload + bytes(padding)


@settings(max_examples=1000 if os.environ.get("KRUN_SOAK") else 60, deadline=None)
@given(pieces=PIECES, seed=st.integers(0, 2**32))
def test_what_passes_and_what_is_read_make_the_whole(
    pieces: list[tuple[bool, int, int | None, bool]], seed: int
) -> None:
    chance = random.Random(seed)
    server, client = Server(chance), Connection(client=True)
    streams = [client.open(scheme="http", authority="b", path="/_hbone/22") for _ in range(2)]
    server.wire += client.data_to_send()
    sent: dict[int, bytearray] = defaultdict(bytearray)
    for is_first, size, padding, is_followed in pieces:
        stream, payload = streams[not is_first], chance.randbytes(size)
        sent[stream] += payload
        server.wire += frame(stream, payload, padding=padding, ends=False)
        if is_followed:
            server.wire += frames.window_update(stream=stream, count=1)
    for stream in streams:
        last = chance.randbytes(chance.choice((0, LONG - 1, LONG + 1)))
        sent[stream] += last
        server.wire += frame(stream, last, padding=None, ends=True)
    server.take_all()
    assert {stream: bytes(server.got[stream]) for stream in streams} == {s: bytes(sent[s]) for s in streams}
    assert sorted(server.ended) == streams


def test_payload_that_passes_is_counted_against_the_window_as_any_other() -> None:
    server, client = Server(random.Random(1)), Connection(client=True)
    stream = client.open(scheme="http", authority="b", path="/_hbone/22")
    server.wire += client.data_to_send()
    server.take_all()
    for _ in range(WIDE_WINDOW // 2**20):
        server.wire += frame(stream, bytes(2**20), padding=None, ends=False)
    server.take_all()
    assert server.passed > WIDE_WINDOW // 2
    (ended,) = server.core.receive(frame(stream, b"x", padding=None, ends=False))
    assert isinstance(ended, ConnectionEnded)
