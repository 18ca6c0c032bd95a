"""The core alone: two ends in memory, bytes carried between them by hand."""

from __future__ import annotations

import itertools
import subprocess
import sys

import hpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hbone import control, frames, tunnel
from hbone.events import (
    ConnectionEnded,
    DataReceived,
    DrainRequested,
    Event,
    LimitChanged,
    ResponseReceived,
    StreamEnded,
    StreamOpened,
    StreamReset,
    WindowOpened,
)
from hbone.tunnel import Connection


class Pair:
    """A client and a server, and what each has seen."""

    def __init__(self, *, stream_window: int = tunnel.STREAM_WINDOW, max_streams: int = 1000) -> None:
        self.client = Connection(client=True, stream_window=stream_window)
        self.server = Connection(client=False, stream_window=stream_window, max_streams=max_streams)
        self.at_client: list[Event] = []
        self.at_server: list[Event] = []
        self.carry()

    def carry(self) -> None:
        while True:
            up, down = self.client.data_to_send(), self.server.data_to_send()
            if not up and not down:
                return
            self.at_server += self.server.receive(up)
            self.at_client += self.client.receive(down)

    def open(self) -> int:
        stream = self.client.open(scheme="http", authority="b.example", path="/_hbone/22")
        self.carry()
        return stream

    def tunnel(self) -> int:
        stream = self.open()
        self.server.respond(stream, 200)
        self.carry()
        self.at_client.clear()
        self.at_server.clear()
        return stream


def came(stream: int, data: bytes) -> DataReceived:
    return DataReceived(stream=stream, pieces=[memoryview(data)])


def joined(events: list[Event]) -> list[Event]:
    """Pieces of payload that follow each other, as one: a split in between gives several."""
    found: list[Event] = []
    for event in events:
        last = found[-1] if found else None
        if isinstance(event, DataReceived) and isinstance(last, DataReceived) and event.stream == last.stream:
            found[-1] = came(event.stream, last.data + event.data)
        else:
            found.append(event)
    return found


def of(kind: type[Event], events: list[Event]) -> list[Event]:
    return [event for event in events if isinstance(event, kind)]


def test_core_imports_neither_asyncio_nor_sockets() -> None:
    code = "import sys, hbone.tunnel; print(sorted({'asyncio', 'socket', 'ssl', 'select'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_request_and_answer() -> None:
    pair = Pair()
    stream = pair.open()
    assert of(StreamOpened, pair.at_server) == [StreamOpened(stream=stream, method="POST", path="/_hbone/22")]
    pair.server.respond(stream, 200)
    pair.carry()
    assert of(ResponseReceived, pair.at_client) == [ResponseReceived(stream=stream, status=200)]


def test_refusal_carries_text_and_ends_the_servers_direction_only() -> None:
    pair = Pair()
    stream = pair.open()
    pair.server.respond(stream, 404, text="no such port\n")
    pair.carry()
    assert pair.at_client[-3:] == [
        ResponseReceived(stream=stream, status=404),
        came(stream, b"no such port\n"),
        StreamEnded(stream=stream),
    ]
    pair.client.send(stream, b"still here")
    pair.carry()
    assert came(stream, b"still here") in pair.at_server


@pytest.mark.parametrize("first", ["client", "server"])
def test_each_direction_ends_by_itself(first: str) -> None:
    pair = Pair()
    stream = pair.tunnel()
    ends = {"client": (pair.client, pair.at_server), "server": (pair.server, pair.at_client)}
    second = "server" if first == "client" else "client"
    ends[first][0].end(stream)
    pair.carry()
    assert ends[first][1] == [StreamEnded(stream=stream)]
    ends[second][0].send(stream, b"late")
    ends[second][0].end(stream)
    pair.carry()
    assert ends[second][1] == [came(stream, b"late"), StreamEnded(stream=stream)]
    assert not pair.client.open_streams
    assert not pair.server.open_streams


def test_window_closes_until_what_came_is_acknowledged() -> None:
    pair = Pair(stream_window=32768)
    stream = pair.tunnel()
    assert pair.client.window(stream) == 32768
    pair.client.send(stream, bytes(32768))
    pair.carry()
    assert pair.client.window(stream) == 0
    assert not of(WindowOpened, pair.at_client)
    pair.server.acknowledge(stream, 32768)
    pair.carry()
    assert pair.client.window(stream) == 32768
    assert WindowOpened(stream=stream) in pair.at_client


def test_stalled_stream_does_not_hold_up_another() -> None:
    pair = Pair()
    stalled, lively = pair.tunnel(), pair.tunnel()
    pair.client.send(stalled, bytes(pair.client.window(stalled)))
    pair.carry()
    for _ in range(100):  # much more than the connection's window
        count = pair.client.window(lively)
        assert count
        pair.client.send(lively, bytes(count))
        pair.carry()
        pair.server.acknowledge(lively, count)
        pair.carry()
    assert pair.client.window(stalled) == 0


def test_peer_that_overruns_the_window_loses_the_connection() -> None:
    pair = Pair(stream_window=32768)
    stream = pair.tunnel()
    pair.client.send(stream, bytes(32768))
    stray = b"\x00\x00\x01\x00\x00" + stream.to_bytes(4, "big") + b"x"
    pair.carry()
    (ended,) = pair.server.receive(stray)
    assert isinstance(ended, ConnectionEnded)
    assert pair.server.data_to_send()[3] == frames.GOAWAY


def test_peer_that_overruns_the_window_of_a_stream_that_we_have_reset_loses_the_connection() -> None:
    pair = Pair(stream_window=32768)
    stream = pair.tunnel()
    pair.server.reset(stream, tunnel.CANCEL)
    pair.server.data_to_send()
    stray = b"\x00\x40\x00\x00\x00" + stream.to_bytes(4, "big") + bytes(16384)
    # What may have been under way.
    assert pair.server.receive(stray) == []
    assert pair.server.receive(stray) == []
    (ended,) = pair.server.receive(b"\x00\x00\x01\x00\x00" + stream.to_bytes(4, "big") + b"x")
    assert isinstance(ended, ConnectionEnded)
    assert pair.server.data_to_send()[3] == frames.GOAWAY


def test_reset_ends_both_directions() -> None:
    pair = Pair()
    stream = pair.tunnel()
    pair.client.reset(stream, tunnel.CANCEL)
    pair.carry()
    assert pair.at_server == [StreamReset(stream=stream, code=tunnel.CANCEL)]
    assert pair.server.window(stream) == 0


def test_what_is_done_to_a_stream_that_is_gone_changes_nothing() -> None:
    pair = Pair()
    stream = pair.tunnel()
    pair.client.reset(stream, tunnel.CANCEL)
    pair.carry()
    for end in (pair.client, pair.server):
        end.end(stream)
        end.reset(stream, tunnel.CANCEL)
        end.acknowledge(stream, 100)
        end.respond(stream, 200)
        assert end.data_to_send() == b""


def test_data_that_crosses_a_reset_is_credited_to_the_connection() -> None:
    pair = Pair()
    other = pair.tunnel()
    for _ in range(200):
        stream = pair.tunnel()
        pair.client.send(stream, bytes(pair.client.window(stream)))
        pair.server.reset(stream, tunnel.NO_ERROR)
        pair.carry()
    assert pair.client.window(other) == tunnel.STREAM_WINDOW


def test_drain_refuses_later_streams_and_lets_running_ones_go_on() -> None:
    pair = Pair()
    stream = pair.tunnel()
    pair.server.drain()
    crossed = pair.client.open(scheme="http", authority="b.example", path="/_hbone/22")
    pair.carry()
    assert DrainRequested(last=frames.MAX_STREAM, code=tunnel.NO_ERROR) in pair.at_client
    assert StreamReset(stream=crossed, code=tunnel.REFUSED_STREAM) in pair.at_client
    assert not of(StreamOpened, pair.at_server)
    pair.client.send(stream, b"up")
    pair.server.send(stream, b"down")
    pair.carry()
    assert came(stream, b"up") in pair.at_server
    assert came(stream, b"down") in pair.at_client


def test_drain_says_it_once() -> None:
    pair = Pair()
    pair.server.drain()
    pair.server.drain()
    pair.carry()
    assert len(of(DrainRequested, pair.at_client)) == 1


def test_peers_limit_is_learnt() -> None:
    pair = Pair(max_streams=7)
    assert LimitChanged(streams=7) in pair.at_client
    assert pair.client.limit == 7


def test_headers_of_tokens_stay_out_of_the_compression_table() -> None:
    pair = Pair()
    secret = [("x-serverless-authorization", "Bearer abc.def.ghi")]
    sizes = []
    for _ in range(3):
        pair.client.open(scheme="https", authority="b.example", path="/_hbone/22", headers=secret)
        sizes.append(len(pair.client.data_to_send()))
    # The rest of the headers is indexed after the first request; the token is sent whole each time.
    assert sizes[1] == sizes[2] > len("Bearer abc.def.ghi") * 0.7


def recorded() -> bytes:
    """All that a client says in a small life: settings, two tunnels, data, an end, a reset, GOAWAY."""
    pair = Connection(client=True)
    first = pair.open(scheme="http", authority="b.example", path="/_hbone/22")
    second = pair.open(scheme="http", authority="b.example", path="/_hbone/15003")
    pair.send(first, b"hello" * 100)
    pair.send(second, bytes(20000))
    pair.end(first)
    pair.reset(second, tunnel.CANCEL)
    pair.close()
    return pair.data_to_send()


@given(st.lists(st.integers(min_value=1, max_value=22000), max_size=30))
def test_any_split_of_the_bytes_gives_the_same_events(cuts: list[int]) -> None:
    data = recorded()
    whole = Connection(client=False).receive(data)
    assert len(whole) > 8
    server = Connection(client=False)
    events: list[Event] = []
    places = [0, *sorted(cut for cut in cuts if cut < len(data)), len(data)]
    for start, end in itertools.pairwise(places):
        events += server.receive(data[start:end])
    assert joined(events) == joined(whole)


def test_byte_by_byte_gives_the_same_events() -> None:
    data = recorded()
    server = Connection(client=False)
    events = [event for byte in data for event in server.receive(bytes([byte]))]
    assert joined(events) == joined(Connection(client=False).receive(data))


@given(st.binary(max_size=300), st.booleans())
def test_nonsense_ends_the_connection_and_raises_nothing(noise: bytes, after_preface: bool) -> None:
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00" if after_preface else b""
    server = Connection(client=False)
    events = server.receive(preface + noise)
    assert not server.is_ended or isinstance(events[-1], ConnectionEnded)
    server.data_to_send()


@given(st.integers(0, 255), st.integers(0, 255), st.integers(0, 3), st.binary(max_size=64))
def test_no_single_frame_raises(kind: int, flags: int, stream: int, body: bytes) -> None:
    pair = Pair()
    pair.tunnel()
    frame = len(body).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + body
    for end in (pair.server, pair.client):
        end.receive(frame)
        end.data_to_send()


@pytest.mark.parametrize("status", ["", "2x", "-1", "0200", "²00", "9" * 5000])  # int() raises at 4300 digits
def test_status_that_is_none_is_0(status: str) -> None:
    pair = Pair()
    stream = pair.open()
    block = hpack.Encoder().encode([(":status", status.encode())])
    header = len(block).to_bytes(3, "big") + bytes([1, 4]) + stream.to_bytes(4, "big")
    assert pair.client.receive(header + block) in ([], [ResponseReceived(stream=stream, status=0)]) or (
        pair.client.is_ended
    )


def test_http_1_is_told_goodbye() -> None:
    server = Connection(client=False)
    (ended,) = server.receive(b"GET / HTTP/1.1\r\nHost: b\r\n\r\n")
    assert isinstance(ended, ConnectionEnded)
    assert server.receive(b"more") == []


def test_frame_longer_than_we_allow_is_a_frame_size_error() -> None:
    pair = Pair()
    (ended,) = pair.server.receive((frames.MAX_LENGTH + 1).to_bytes(3, "big") + bytes(6))
    assert isinstance(ended, ConnectionEnded)
    assert control.read_goaway(pair.server.data_to_send())[1] == 0x6


def test_window_of_a_stream_that_takes_much_is_narrow_while_another_gets_little_and_wide_again_after_it() -> None:
    pair = Pair()
    much, little = (pair.client.open(scheme="http", authority="b", path="/_hbone/22") for _ in range(2))
    pair.carry()
    bulk = pair.server.open_streams[much]

    def take(count: int) -> None:
        """So much comes, and is handed on at once."""
        for _ in range(count):
            size = min(bulk.allowed, 64 * 1024)
            pair.server.receive(frames.header(length=size, kind=frames.DATA, flags=0, stream=much) + bytes(size))
            pair.server.took(bulk, size, is_quick=True)

    take(400)
    assert bulk.width == tunnel.WIDE_WINDOW
    small = frames.header(length=1, kind=frames.DATA, flags=0, stream=little) + b"x"
    for _ in range(40):
        pair.server.receive(small)
        take(4)
    assert bulk.width == tunnel.STREAM_WINDOW
    assert bulk.allowed <= bulk.width
    take(400)
    assert bulk.width == tunnel.WIDE_WINDOW
    # It alone may send in pieces of any size.
    pair.server.receive(frames.header(length=1, kind=frames.DATA, flags=0, stream=much) + b"x")
    pair.server.took(bulk, 1, is_quick=True)
    take(40)
    assert bulk.width == tunnel.WIDE_WINDOW
