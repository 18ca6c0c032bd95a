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
from hbone.frames import DATA, END_STREAM, HEADER_LENGTH, PADDED
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
        raise AssertionError(f"{count} bytes of file {source} are never asked for here")


class Server:
    """It takes what is long from the wire itself, as a socket is spliced, when chance has it."""

    def __init__(self, chance: random.Random) -> None:
        self.core = Connection(client=False, stream_window=WIDE_WINDOW)
        self.wire = bytearray()
        self.got: dict[int, bytearray] = defaultdict(bytearray)
        self.ended: list[int] = []
        self.passed = 0
        self.singles = 0  # frames that came alone
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
            at_once = (self._chance.randint(1, 100_000), self.core.until_header, self._frame())
            count = self._chance.choice(at_once)
            data = memoryview(bytes(self.wire[:count]))
            del self.wire[:count]
            if (flow := self.core.receive_single(data)) is not None:
                self.got[flow.number] += data[HEADER_LENGTH:]
                self.singles += 1
            else:
                self.report(self.core.receive(data))

    def _frame(self) -> int:
        """The length of a frame, if one begins here."""
        return HEADER_LENGTH + int.from_bytes(self.wire[:3], "big")

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


@pytest.mark.parametrize("left", [0, 1])
def test_frame_that_comes_alone_is_held_to_the_window_too(left: int) -> None:
    window = 70_000
    client, server = Connection(client=True), Connection(client=False, stream_window=window)
    stream = client.open(scheme="http", authority="b", path="/_hbone/22")
    server.receive(client.data_to_send())
    first = frame(stream, bytes(window - left), padding=None, ends=False)
    assert server.receive_single(memoryview(first)) is server.open_streams[stream]
    one = memoryview(frame(stream, b"x", padding=None, ends=False))
    assert bool(server.receive_single(one)) == bool(left)
    if not left:
        assert isinstance(server.receive(one)[-1], ConnectionEnded)


def test_frame_that_comes_alone_and_needs_more_than_its_payload_handed_on_is_left_to_the_whole_core() -> None:
    client, server = Connection(client=True), Connection(client=False)
    streams = [client.open(scheme="http", authority="b", path="/_hbone/22") for _ in range(2)]
    head = client.data_to_send()
    ordinary = frame(streams[0], b"x", padding=None, ends=False)
    assert server.receive_single(memoryview(ordinary)) is None  # before HTTP/2 has begun
    server.receive(head)
    for special in (
        frame(streams[0], b"x", padding=None, ends=True),
        frame(streams[0], b"x", padding=0, ends=False),
        frame(99, b"x", padding=None, ends=False),
        frame(streams[0], b"", padding=None, ends=False),
        frames.window_update(stream=streams[0], count=1),
        ordinary + ordinary,
        ordinary[:-1],
    ):
        assert server.receive_single(memoryview(special)) is None
    assert server.receive(ordinary[:5]) == []
    assert server.receive_single(memoryview(ordinary)) is None  # within a frame
    assert client.receive_single(memoryview(ordinary)) is None  # not answered yet
    assert not server.is_ended
