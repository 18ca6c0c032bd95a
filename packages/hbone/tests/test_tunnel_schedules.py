"""The core under schedules that nobody would think of: what is sent arrives, whole and in order, however it is cut."""

from __future__ import annotations

import os
import random
from collections import defaultdict

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hbone import control, frames, tunnel
from hbone.events import ConnectionEnded, DataReceived, Event, StreamEnded, StreamOpened, StreamReset
from hbone.tunnel import Connection

WINDOW = 20_000
STREAMS = 3


class End:
    """One side: what it has to send, and what it has got, by stream."""

    def __init__(self, core: Connection) -> None:
        self.core = core
        self.wire = bytearray()  # on its way to this side
        self.to_send: dict[int, bytearray] = {}
        self.sent: dict[int, bytearray] = defaultdict(bytearray)
        self.got: dict[int, bytearray] = defaultdict(bytearray)
        self.owed: dict[int, int] = defaultdict(int)
        self.has_ended: set[int] = set()  # said by us
        self.was_ended: set[int] = set()  # said by the peer
        self.was_reset: set[int] = set()

    def take(self, count: int) -> None:
        data = bytes(self.wire[:count])
        del self.wire[:count]
        buffer = bytearray(data)
        for event in self.core.receive(memoryview(buffer)):
            self._take(event)
        buffer[:] = bytes(len(buffer))  # the memory is used again: whoever had kept it would see

    def _take(self, event: Event) -> None:
        match event:
            case StreamOpened(stream=stream):
                self.core.respond(stream, 200)
                self.to_send[stream] = bytearray(random.Random(stream).randbytes(30_000))
            case DataReceived(stream=stream):
                assert stream not in self.was_ended
                self.got[stream] += event.data
                self.owed[stream] += len(event.data)
            case StreamEnded(stream=stream):
                self.was_ended.add(stream)
            case StreamReset(stream=stream):
                self.was_reset.add(stream)
            case ConnectionEnded(reason=reason):
                pytest.fail(reason)

    def send(self, stream: int, count: int) -> None:
        rest = self.to_send.get(stream)
        if rest and stream not in self.has_ended:
            data = bytes(rest[: min(count, self.core.window(stream))])
            if data:
                self.core.send(stream, data)
                self.sent[stream] += data
                del rest[: len(data)]

    def acknowledge(self, stream: int, count: int) -> None:
        count = min(count, self.owed[stream])
        self.owed[stream] -= count
        self.core.acknowledge(stream, count)

    def end(self, stream: int) -> None:
        if stream in self.to_send and stream not in self.has_ended:
            self.has_ended.add(stream)
            self.core.end(stream)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["send", "send", "take", "take", "acknowledge", "end"]),
        st.booleans(),  # by the client
        st.integers(0, STREAMS - 1),
        st.integers(1, 25_000),
    ),
    max_size=120,
)


@settings(max_examples=1000 if os.environ.get("KRUN_SOAK") else 60, deadline=None)
@given(steps=STEPS, seed=st.integers(0, 2**32))
# More than the window before it is known, then what says that it is known, then an end, which needs no window.
@example(steps=[("send", True, 0, WINDOW + 1), ("take", True, 0, 33), ("end", True, 0, 1)], seed=0)
def test_no_byte_is_lost_whatever_both_ends_do_and_wherever_reads_are_cut(
    steps: list[tuple[str, bool, int, int]], seed: int
) -> None:
    client = End(Connection(client=True, stream_window=WINDOW))
    server = End(Connection(client=False, stream_window=WINDOW))
    streams = []
    for _ in range(STREAMS):
        stream = client.core.open(scheme="http", authority="b", path="/_hbone/22")
        client.to_send[stream] = bytearray(random.Random(seed + stream).randbytes(30_000))
        streams.append(stream)
    for kind, by_client, index, count in steps:
        end, stream = (client if by_client else server), streams[index]
        _carry(client, server)
        match kind:
            case "send":
                end.send(stream, count)
            case "take":
                end.take(count)
            case "acknowledge":
                end.acknowledge(stream, count)
            case "end":
                end.end(stream)
    _finish(client, server, streams)
    for stream in streams:
        assert server.got[stream] == client.sent[stream]
        assert client.got[stream] == server.sent[stream]
        assert stream in client.was_ended
        assert stream in server.was_ended
    assert not client.core.open_streams
    assert not server.core.open_streams
    assert not client.was_reset | server.was_reset


def _carry(client: End, server: End) -> None:
    server.wire += client.core.data_to_send()
    client.wire += server.core.data_to_send()


def _finish(client: End, server: End, streams: list[int]) -> None:
    """Let everything arrive, and both ends say all."""
    for _ in range(12):  # a window at least, each time
        _carry(client, server)
        for end in (client, server):
            end.take(len(end.wire))
            for stream in streams:
                end.acknowledge(stream, 2**31)
                end.send(stream, 2**31)
        _carry(client, server)
    for end in (client, server):
        for stream in streams:
            assert stream in end.has_ended or not end.to_send[stream], "a window was never opened again"
            end.end(stream)
        _carry(client, server)
    for end in (client, server):
        end.take(len(end.wire))


@pytest.mark.parametrize("size", [1, 8, 9, 10, 4096])
@pytest.mark.parametrize("padding", [0, 1, 255])
def test_padded_payload_arrives_without_its_padding_in_pieces_of_any_size(size: int, padding: int) -> None:
    pair = _tunnel()
    payload = bytes(range(256)) * 4
    frame = frames.header(length=len(payload) + padding + 1, kind=0, flags=0x8 | 0x1, stream=1)
    frame += bytes((padding,)) + payload + bytes(padding)
    events: list[Event] = []
    got = b""
    for start in range(0, len(frame), size):
        for event in pair[1].receive(frame[start : start + size]):
            events.append(event)
            got += event.data if isinstance(event, DataReceived) else b""
    assert got == payload
    assert events[-1] == StreamEnded(stream=1)


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (frames.header(length=5, kind=0, flags=8, stream=1) + b"\x05aaaa", 0x1),  # padding of the whole frame
        (frames.header(length=0, kind=0, flags=8, stream=1), 0x6),
        (frames.window_update(stream=0, count=0), 0x1),
        (frames.window_update(stream=0, count=2**31 - 1), 0x3),
        (frames.header(length=3, kind=8, flags=0, stream=1) + bytes(3), 0x6),
        (frames.header(length=20_001, kind=0, flags=0, stream=1), 0x3),  # the window is 20,000
        (frames.header(length=6, kind=4, flags=0, stream=0) + b"\x00\x04" + b"\xff" * 4, 0x3),
        (frames.header(length=1, kind=0, flags=0, stream=99) + b"x", 0x1),  # never opened
    ],
)
def test_what_rfc_9113_calls_a_connections_error_ends_it_with_its_code(frame: bytes, code: int) -> None:
    _, server = _tunnel()
    server.data_to_send()
    events = server.receive(frame)
    assert isinstance(events[-1], ConnectionEnded)
    said = server.data_to_send()
    assert said[3] == frames.GOAWAY
    assert control.read_goaway(said)[1] == code


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (frames.window_update(stream=1, count=0), 0x1),
        (frames.window_update(stream=1, count=2**31 - 1), 0x3),
    ],
)
def test_what_it_calls_a_streams_error_ends_that_stream_alone(frame: bytes, code: int) -> None:
    client, server = _tunnel()
    assert server.receive(frame) == [StreamReset(stream=1, code=code)]
    assert not server.is_ended
    assert client.receive(server.data_to_send()) == [StreamReset(stream=1, code=code)]


def test_smaller_window_in_mid_stream_makes_it_negative_and_it_comes_back() -> None:
    client, server = _tunnel()
    server.send(1, bytes(15_000))
    shrink = frames.header(length=6, kind=4, flags=0, stream=0) + b"\x00\x04" + (1000).to_bytes(4, "big")
    server.receive(shrink)
    assert server.open_streams[1].window == 1000 - 15_000
    assert server.window(1) == 0
    client.receive(server.data_to_send())
    server.receive(frames.window_update(stream=1, count=14_500))
    assert server.window(1) == 500


def test_answer_that_begins_with_payload_is_a_streams_error() -> None:
    client = Connection(client=True)
    server = Connection(client=False)
    client.receive(server.data_to_send())
    stream = client.open(scheme="http", authority="b", path="/_hbone/22")
    data = frames.header(length=1, kind=0, flags=0, stream=stream) + b"x"
    assert client.receive(data) == [StreamReset(stream=stream, code=tunnel.PROTOCOL_ERROR)]


def _tunnel() -> tuple[Connection, Connection]:
    """A client and a server with stream 1 between them."""
    client = Connection(client=True, stream_window=WINDOW)
    server = Connection(client=False, stream_window=WINDOW)
    client.open(scheme="http", authority="b", path="/_hbone/22")
    server.receive(client.data_to_send())
    server.respond(1, 200)
    client.receive(server.data_to_send())
    server.receive(client.data_to_send())
    return client, server
