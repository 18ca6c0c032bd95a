"""The core of the tunnel: HTTP/2 without any input or output. Bytes in, events out, ``data_to_send()`` back.

Everything that decides what goes over the wire lives here; sockets, time and tasks live in ``session``. What it is made
of: ``cutter`` finds the frames, ``blocks`` unpacks headers by hpack, ``control`` reads the frames without payload, and
here is the state of the streams (RFC 9113 §5.1) and the accounts of their windows (§5.2).

What headers say is read and judged where the request is served, and never ends the connection: a front has the
requests of many users in one. Payload is handed on before its frame is whole, and never copied.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from hbone import blocks, control, frames
from hbone.blocks import Block
from hbone.closed import Closed
from hbone.cutter import Cutter
from hbone.events import (
    ConnectionEnded,
    DataReceived,
    DrainRequested,
    Event,
    Fields,
    InformationReceived,
    LimitChanged,
    ResponseReceived,
    StreamEnded,
    StreamOpened,
    StreamReset,
    TrailersReceived,
    WindowOpened,
)
from hbone.flow import Flow
from hbone.frames import DATA, END_STREAM, FrameError
from hbone.idle import IdleFrames

# Error codes of RFC 9113 §7 that a tunnel uses.
NO_ERROR = 0x0
PROTOCOL_ERROR = 0x1
INTERNAL_ERROR = 0x2
FLOW_CONTROL_ERROR = 0x3
STREAM_CLOSED = 0x5
REFUSED_STREAM = 0x7
CANCEL = 0x8
CONNECT_ERROR = 0xA
ENHANCE_YOUR_CALM = 0xB

MAX_STREAMS = 1000
# What a peer may send on one stream before we have handed it on: the memory that one stalled tunnel can hold.
STREAM_WINDOW = 256 * 1024
# And while its target takes all at once, up to this; for all streams of a connection together, so much more.
WIDE_WINDOW = 4 * 1024 * 1024
WIDE_WINDOWS = 16 * 1024 * 1024
# Credit for the connection is given back on arrival, so that a stalled tunnel never holds up the others.
CONNECTION_WINDOW = 16 * 1024 * 1024
DEFAULT_WINDOW = 65535  # RFC 9113 §6.9.2
# Before the peer's SETTINGS are here, how many streams we dare to open (RFC 9113 §6.5.2 recommends no less to servers).
UNKNOWN_LIMIT = 100
OK = blocks.write(((b":status", b"200"),))
UNLIMITED = 2**31 - 1
HEADER_LIST_LIMIT = 64 * 1024


class Connection:
    """One end of one HTTP/2 connection, client or server."""

    def __init__(self, *, client: bool, max_streams: int = MAX_STREAMS, stream_window: int = STREAM_WINDOW) -> None:
        self.is_client = client
        self.is_greeted = False  # the peer's SETTINGS are here, with which HTTP/2 begins (RFC 9113 §3.4)
        self.is_ended = False  # after ConnectionEnded
        self.is_draining = False  # one of both sides has sent GOAWAY
        self.limit = UNKNOWN_LIMIT  # streams that the peer takes at once
        self.idle = IdleFrames()
        self.frame_size = 16384  # of DATA that the peer takes
        self.open_streams: dict[int, Flow] = {}
        self.window_left = DEFAULT_WINDOW  # bytes that we may send on all streams together
        self._first_window = DEFAULT_WINDOW  # of each stream that we send on
        self._stream_window = stream_window
        # Before the peer has read what we allow, it may send what the protocol allows.
        self._unread = max(0, DEFAULT_WINDOW - stream_window)
        self._allowed = CONNECTION_WINDOW  # bytes that the peer may send on all streams together
        self._owed = 0  # bytes of it that were used, and not yet given back
        self._wide_left = WIDE_WINDOWS
        self._out = bytearray()
        self._events: list[Event] = []  # of what is being received
        self._runs: dict[int, DataReceived] = {}  # by stream: payload that has come in one go
        self._preface = control.PREFACE  # what of it is still to come
        self._cutter = Cutter(preface=not client, taker=self)
        self._blocks = blocks.Reader()
        self._max_streams = max_streams
        self._next = 1  # the number of the next stream that a client opens
        self._highest = 0  # of those that were opened
        self._closed = Closed()
        if client:
            self._out += control.PREFACE
        self._out += control.settings(
            {
                control.MAX_CONCURRENT_STREAMS: max_streams,
                control.INITIAL_WINDOW_SIZE: stream_window,
                control.MAX_FRAME_SIZE: frames.MAX_LENGTH,
                control.MAX_HEADER_LIST_SIZE: HEADER_LIST_LIMIT,
                **({control.ENABLE_PUSH: 0} if client else {}),
            }
        )
        self._out += frames.window_update(stream=0, count=CONNECTION_WINDOW - DEFAULT_WINDOW)

    def receive(self, data: bytes | bytearray | memoryview) -> list[Event]:
        """Take bytes of the peer, in any pieces; return what they mean, which points to them where it is payload."""
        events = self._events = []
        if self.is_ended:
            return events
        self._runs.clear()
        try:
            self._cutter.feed(memoryview(data))
        except FrameError as error:
            self._out += frames.goaway(last=self._last, code=error.code)
            self.is_ended = True
            self._end_all()
            events.append(ConnectionEnded(reason=str(error)))
        self._events = []  # nothing of it is kept
        return events

    @property
    def unsent(self) -> int:
        """Bytes that wait to be asked for."""
        return len(self._out)

    def data_to_send(self) -> bytes:
        """What is to be written to the peer now; asking empties it."""
        data = bytes(self._out)
        self._out.clear()
        return data

    def open(self, *, scheme: str, authority: str, path: str, headers: Sequence[tuple[str, str]] = ()) -> int:
        """Ask for a tunnel; return the stream's number. The headers are marked as never to be put into a table."""
        pseudo = ((":method", "POST"), (":scheme", scheme), (":authority", authority), (":path", path))
        block = blocks.write(blocks.encoded(pseudo)) + blocks.write(blocks.encoded(headers), never_indexed=True)
        return self._ask(block, ends=False)

    def ask(self, block: bytes) -> Flow:
        """Ask for a tunnel by a header block that is made already; return the stream's account."""
        return self.open_streams[self._ask(block, ends=False)]

    def request(self, fields: Fields, *, ends: bool) -> int:
        """Ask for anything: all fields, pseudo-headers first. Return the stream's number."""
        return self._ask(blocks.write(fields), ends=ends)

    def inform(self, stream: int, fields: Fields) -> None:
        """Say something before the answer."""
        if self._is_ours_open(stream):
            self._send_block(stream, blocks.write(fields), ends=False)

    def answer(self, stream: int, fields: Fields, *, ends: bool) -> None:
        """Answer a request: all fields, pseudo-header first."""
        if self._is_ours_open(stream):
            self._send_block(stream, blocks.write(fields), ends=ends)

    def respond(self, stream: int, status: int, *, text: str = "", headers: Sequence[tuple[str, str]] = ()) -> None:
        """Answer a request. Any status but 200 carries a short text, and ends our direction."""
        if stream not in self.open_streams:
            return
        if status == 200 and not headers:
            self._send_block(stream, OK, ends=False)
            return
        fields = [(":status", str(status)), *headers]
        body = text.encode()[: self.window(stream)]
        self.answer(stream, blocks.encoded([*fields, ("content-type", "text/plain; charset=utf-8")]), ends=not body)
        if body:
            self.send(stream, body)
            self.end(stream)

    def window(self, stream: int) -> int:
        """How many bytes may be sent on the stream now."""
        flow = self.open_streams.get(stream)
        return self.room(flow) if flow is not None else 0

    def room(self, flow: Flow) -> int:
        """The same, for who knows the stream's account."""
        if flow.is_over or flow.is_ended_by_us:
            return 0
        return max(0, min(flow.window, self.window_left))

    def charge(self, flow: Flow, count: int) -> None:
        """So many bytes, no more than there is room for, are sent by the caller, which has framed them."""
        flow.window -= count
        self.window_left -= count
        self.idle.earn(1 + count // self.frame_size)

    def send(self, stream: int, data: bytes | memoryview) -> None:
        """Send payload, no more than ``window`` says."""
        size = self.frame_size
        for start in range(0, len(data), size):
            piece = data[start : start + size]
            self._out += frames.header(length=len(piece), kind=DATA, flags=0, stream=stream)
            self._out += piece
        if data:
            self.charge(self.open_streams[stream], len(data))

    def end(self, stream: int, trailers: Fields = ()) -> None:
        """Say that we have sent all; the peer's direction goes on."""
        flow = self.open_streams.get(stream)
        if flow is None or flow.is_ended_by_us:
            return
        if trailers:
            self._send_block(stream, blocks.write(trailers), ends=True)
            return
        self._out += frames.header(length=0, kind=DATA, flags=END_STREAM, stream=stream)
        self._end_ours(flow)

    def reset(self, stream: int, code: int) -> None:
        """End the stream in both directions at once."""
        flow = self.open_streams.get(stream)
        if flow is not None:
            self._out += frames.reset(stream=stream, code=code)
            self._forget(flow, is_reset_by_us=True)

    def acknowledge(self, stream: int, count: int) -> None:
        """Say that ``count`` received bytes have been handed on, so that the peer may send as many again."""
        flow = self.open_streams.get(stream)
        if flow is not None and not flow.is_ended_by_peer:
            flow.owed += count
            if flow.owed >= flow.width // 4:
                self._give_back(flow)

    def took(self, flow: Flow, count: int, *, is_quick: bool) -> None:
        """The same, from who knows whether all was handed on at once: then the stream's window grows, else it
        shrinks back to what it began with."""
        if flow.is_over or flow.is_ended_by_peer:
            return
        flow.owed += count
        if not is_quick and flow.width > self._stream_window:
            cut = min(flow.owed, flow.width - self._stream_window)
            flow.owed -= cut
            flow.width -= cut
            self._wide_left += cut
        if flow.owed >= flow.width // 4:
            if is_quick and flow.width < WIDE_WINDOW:
                more = min(flow.width, WIDE_WINDOW - flow.width, self._wide_left)
                flow.width += more
                flow.owed += more
                self._wide_left -= more
            self._give_back(flow)

    def _give_back(self, flow: Flow) -> None:
        self._out += frames.window_update(stream=flow.number, count=flow.owed)
        flow.allowed += flow.owed
        flow.owed = 0

    def drain(self) -> None:
        """Take no new stream; running ones go on (RFC 9113 §6.8: the number says that none is given up)."""
        if not self.is_draining:
            self._out += frames.goaway(last=frames.MAX_STREAM, code=NO_ERROR)
        self.is_draining = True

    def close(self, *, code: int = NO_ERROR) -> None:
        """Say goodbye: the connection is closed after this."""
        if not self.is_ended:
            self._out += frames.goaway(last=self._last, code=code)
        self.is_ended = True
        self._end_all()

    def take_preface(self, piece: bytes) -> None:
        if not self._preface.startswith(piece):
            raise FrameError("another beginning than HTTP/2's", code=PROTOCOL_ERROR)
        self._preface = self._preface[len(piece) :]

    def take_frame(self, frame: bytes) -> None:
        kind = frame[3]
        self.idle.look_at(frame)
        if not self.is_greeted and kind != frames.SETTINGS:
            raise FrameError("another frame than settings first", code=PROTOCOL_ERROR)
        if self._blocks.takes(kind):
            block = self._blocks.feed(frame)
            self._report(self._receive_block(block) if block else ())
        elif kind == frames.WINDOW_UPDATE:
            self._update(frame)
        elif kind == frames.RST_STREAM:
            self._report(self._reset_by_peer(frame))
        elif kind == frames.SETTINGS:
            self._report(self._settle(frame))
        elif kind == frames.PING:
            self._out += control.pong(frame)
        elif kind == frames.GOAWAY:
            last, code = control.read_goaway(frame)
            self.is_draining = True
            self._report([DrainRequested(last=last, code=code)])
        elif kind == frames.PRIORITY:
            control.check_priority(frame)
        # What nobody knows is passed over (RFC 9113 §5.5).

    def begin_data(self, stream: int, flags: int, *, length: int, padding: int) -> Flow | None:
        if self._blocks.takes(DATA) or not self.is_greeted:
            raise FrameError("payload out of order", code=PROTOCOL_ERROR)
        if length <= padding and not flags & END_STREAM:
            self.idle.spend()
        self._allowed -= length
        if self._allowed < 0:
            raise FrameError("more payload than the connection's window", code=FLOW_CONTROL_ERROR)
        # Given back on arrival, whoever it is for.
        self._owed += length
        if self._owed >= CONNECTION_WINDOW // 2:
            self._out += frames.window_update(stream=0, count=self._owed)
            self._allowed += self._owed
            self._owed = 0
        flow = self.open_streams.get(stream)
        if flow is None or flow.is_ended_by_peer:
            self._report(self._unwanted(stream))
            return None
        if length > flow.allowed:
            raise FrameError("more payload than the stream's window", code=FLOW_CONTROL_ERROR)
        flow.allowed -= length
        if self.is_client and not flow.is_answered:
            self._report(self._broken(stream, PROTOCOL_ERROR))
            return None
        if padding:  # never handed on
            self.acknowledge(stream, padding)
        return flow

    def take_data(self, flow: Flow, piece: memoryview) -> None:
        if flow.is_over:  # since the frame began
            return
        run = self._runs.get(flow.number)
        if run is not None:
            run.pieces.append(piece)
            return
        run = self._runs[flow.number] = DataReceived(stream=flow.number, pieces=[piece])
        self._events.append(run)

    def end_data(self, stream: int, flags: int) -> None:
        flow = self.open_streams.get(stream)
        if flags & END_STREAM and flow is not None and not flow.is_ended_by_peer:
            self._report(self._end_theirs(flow))

    def _report(self, events: Iterable[Event]) -> None:
        self._runs.clear()  # what comes of the same stream after this is a new event
        self._events += events

    def _update(self, frame: bytes) -> None:
        stream, count = control.read_window_update(frame)
        if not stream:
            was, self.window_left = self.window_left, self.window_left + count
            if not count or self.window_left > frames.MAX_WINDOW:
                code = FLOW_CONTROL_ERROR if count else PROTOCOL_ERROR
                raise FrameError("a window of nothing, or of too much", code=code)
            if was <= 0:
                self._report([WindowOpened(stream=0)])
            return
        flow = self.open_streams.get(stream)
        if flow is None:
            self._check_known(stream)
            return
        was, flow.window = flow.window, flow.window + count
        if not count or flow.window > frames.MAX_WINDOW:
            self._report(self._broken(stream, FLOW_CONTROL_ERROR if count else PROTOCOL_ERROR))
        elif was <= 0:
            self._report([WindowOpened(stream=stream)])

    def _check_known(self, stream: int) -> None:
        """Raises FrameError for a stream that never was."""
        is_opened = stream < self._next if self.is_client else stream <= self._highest
        if not is_opened or not stream % 2:
            raise FrameError(f"a frame of stream {stream}, which was never opened", code=PROTOCOL_ERROR)

    def _unwanted(self, stream: int) -> list[Event]:
        """Payload for a stream that the peer has ended, or that is over."""
        self._check_known(stream)
        if stream in self.open_streams:
            return self._broken(stream, STREAM_CLOSED)
        if not self._closed.was_reset_by_us(stream):
            self._out += frames.reset(stream=stream, code=STREAM_CLOSED)
            self._closed.add(stream, is_ours=True)  # said once
        return []

    def _reset_by_peer(self, frame: bytes) -> list[Event]:
        stream, code = control.read_reset(frame)
        flow = self.open_streams.get(stream)
        if flow is None:
            self._check_known(stream)
            return []
        self._forget(flow)
        return [StreamReset(stream=stream, code=code)]

    def _settle(self, frame: bytes) -> list[Event]:
        """The peer's settings, or that it has read ours."""
        values = control.read_settings(frame, is_client=self.is_client)
        if values is None:
            if not self.is_greeted:
                raise FrameError("an acknowledgement before settings", code=PROTOCOL_ERROR)
            for flow in self.open_streams.values():
                flow.allowed -= self._unread
            self._unread = 0
            return []
        if not self.is_greeted:  # who says nothing of it takes any number
            self.limit = UNLIMITED
        self.is_greeted = True
        self.limit = values.get(control.MAX_CONCURRENT_STREAMS, self.limit)
        self.frame_size = values.get(control.MAX_FRAME_SIZE, self.frame_size)
        self._resize(values.get(control.INITIAL_WINDOW_SIZE, self._first_window))
        self._out += control.SETTINGS_ACK
        return [LimitChanged(streams=self.limit), WindowOpened(stream=0)]

    def _broken(self, stream: int, code: int) -> list[Event]:
        """The peer has done to one stream what it must not."""
        self.reset(stream, code)
        return [StreamReset(stream=stream, code=code)]

    def _receive_block(self, block: Block) -> list[Event]:
        self.idle.earn()
        stream = block.stream
        flow = self.open_streams.get(stream)
        if flow is None:
            return self._head_of_another(block)
        if flow.is_ended_by_peer:
            return self._broken(stream, STREAM_CLOSED)
        if self.is_client and not flow.is_answered:
            status = blocks.status(block.fields)
            if 100 <= status < 200:
                if block.ends:  # an end where none may be (RFC 9113 §8.1): of this stream alone
                    return self._broken(stream, PROTOCOL_ERROR)
                return [InformationReceived(stream=stream, status=status, fields=block.fields)]
            flow.is_answered = True
            events: list[Event] = [ResponseReceived(stream=stream, status=status, fields=block.fields)]
            return events + self._end_theirs(flow) if block.ends else events
        if not block.ends:  # trailers without an end
            return self._broken(stream, PROTOCOL_ERROR)
        return [TrailersReceived(stream=stream, fields=block.fields), *self._end_theirs(flow)]

    def _head_of_another(self, block: Block) -> list[Event]:
        """Headers of a stream that is not open: a request, if it is new."""
        stream = block.stream
        if self.is_client or not stream % 2:
            self._check_known(stream)
        if self.is_client or stream <= self._highest:
            if self._closed.was_reset_by_us(stream):
                return []
            code = STREAM_CLOSED if stream in self._closed else PROTOCOL_ERROR
            raise FrameError(f"headers of stream {stream}, which is over", code=code)
        self._highest = stream
        if self.is_draining or len(self.open_streams) >= self._max_streams:
            self._out += frames.reset(stream=stream, code=REFUSED_STREAM)
            self._closed.add(stream, is_ours=True)
            return []
        flow = self._add(stream)
        method, path = (blocks.text(block.fields, name) for name in (b":method", b":path"))
        events: list[Event] = [StreamOpened(stream=stream, method=method, path=path, fields=block.fields, flow=flow)]
        return events + self._end_theirs(flow) if block.ends else events

    def _resize(self, window: int) -> None:
        """The peer gives all streams another window (RFC 9113 §6.9.2)."""
        change = window - self._first_window
        self._first_window = window
        for flow in self.open_streams.values():
            flow.window += change
            if flow.window > frames.MAX_WINDOW:
                raise FrameError("a window of too much", code=FLOW_CONTROL_ERROR)

    @property
    def _last(self) -> int:
        """The last stream of the peer's that we have looked at."""
        return 0 if self.is_client else self._highest

    def _ask(self, block: bytes, *, ends: bool) -> int:
        stream = self._next
        self._next += 2
        self._add(stream)
        self._send_block(stream, block, ends=ends)
        return stream

    def _send_block(self, stream: int, block: bytes, *, ends: bool) -> None:
        self._out += frames.headers(stream=stream, block=block, ends=ends, size=self.frame_size)
        if ends and (flow := self.open_streams.get(stream)):
            self._end_ours(flow)

    def _is_ours_open(self, stream: int) -> bool:
        flow = self.open_streams.get(stream)
        return flow is not None and not flow.is_ended_by_us

    def _add(self, stream: int) -> Flow:
        flow = Flow(number=stream, window=self._first_window, allowed=self._stream_window + self._unread)
        flow.width = self._stream_window
        self.open_streams[stream] = flow
        return flow

    def _end_theirs(self, flow: Flow) -> list[Event]:
        flow.is_ended_by_peer = True
        self._close_if_over(flow)
        return [StreamEnded(stream=flow.number)]

    def _end_ours(self, flow: Flow) -> None:
        flow.is_ended_by_us = True
        self._close_if_over(flow)

    def _close_if_over(self, flow: Flow) -> None:
        if flow.is_ended_by_peer and flow.is_ended_by_us:
            self._forget(flow)

    def _forget(self, flow: Flow, *, is_reset_by_us: bool = False) -> None:
        flow.is_over = True
        self._wide_left += flow.width - self._stream_window
        self.open_streams.pop(flow.number, None)
        self._closed.add(flow.number, is_ours=is_reset_by_us)

    def _end_all(self) -> None:
        for flow in self.open_streams.values():
            flow.is_over = True
        self.open_streams.clear()
