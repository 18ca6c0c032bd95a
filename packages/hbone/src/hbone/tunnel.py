"""The core of the tunnel: HTTP/2 without any input or output. Bytes in, events out, ``data_to_send()`` back.

Everything that decides what goes over the wire lives here; sockets, time and tasks live in ``session``. No payload
passes h2, which would copy and print it: DATA, WINDOW_UPDATE and the accounts of windows are ours, and h2 sees an
empty frame where a stream ends. Of all else it keeps the state, with two exceptions. It takes a GOAWAY for the end of
the connection, so that a graceful one (RFC 9113 §6.8: running streams go on) never reaches it, in either direction.
And it ends a connection for headers that one request has wrong, where a front has the requests of many users in one
connection: so h2 is shown headers of the same shape only (a request, an information, an answer, trailers), in both
directions, and what they say is read and judged where the request is served.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import h2.events
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes, Settings

from hbone import blocks, frames
from hbone.blocks import Block
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
from hbone.shapes import ANSWER, INFORMATION, REQUEST, SHOWN, TRAILERS, Shape

# Error codes of RFC 9113 §7 that a tunnel uses.
NO_ERROR = 0x0
PROTOCOL_ERROR = 0x1
INTERNAL_ERROR = 0x2
FLOW_CONTROL_ERROR = 0x3
FRAME_SIZE_ERROR = 0x6
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
        self._cutter = Cutter(preface=not client, taker=self)
        self._blocks = blocks.Reader()
        # Nothing but our own shapes passes it: there is nothing to check.
        config = H2Configuration(
            client_side=client,
            validate_inbound_headers=False,
            normalize_inbound_headers=False,
            validate_outbound_headers=False,
            normalize_outbound_headers=False,
        )
        self._h2 = H2Connection(config)
        self._h2.local_settings = Settings(
            client=client,
            initial_values={
                SettingCodes.MAX_CONCURRENT_STREAMS: max_streams,
                SettingCodes.INITIAL_WINDOW_SIZE: stream_window,
                SettingCodes.MAX_FRAME_SIZE: frames.MAX_LENGTH,
                SettingCodes.MAX_HEADER_LIST_SIZE: HEADER_LIST_LIMIT,
                **({SettingCodes.ENABLE_PUSH: 0} if client else {}),
            },
        )
        self._h2.max_inbound_frame_size = frames.MAX_LENGTH
        self._h2.initiate_connection()
        self._h2.increment_flow_control_window(CONNECTION_WINDOW - DEFAULT_WINDOW)

    def receive(self, data: bytes | bytearray | memoryview) -> list[Event]:
        """Take bytes of the peer, in any pieces; return what they mean, which points to them where it is payload."""
        events = self._events = []
        if self.is_ended:
            return events
        self._runs.clear()
        try:
            self._cutter.feed(memoryview(data))
        except (ProtocolError, FrameError) as error:
            self._keep()
            if isinstance(error, FrameError):
                self._out += frames.goaway(last=self._h2.highest_inbound_stream_id, code=error.code)
            self.is_ended = True
            self._end_all()
            events.append(ConnectionEnded(reason=str(error)))
        return events

    @property
    def unsent(self) -> int:
        """Bytes that wait to be asked for; of control, h2 may still hold some."""
        return len(self._out)

    def data_to_send(self) -> bytes:
        """What is to be written to the peer now; asking empties it."""
        self._keep()
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
            self._send_block(stream, blocks.write(fields), shape=INFORMATION, ends=False)

    def answer(self, stream: int, fields: Fields, *, ends: bool) -> None:
        """Answer a request: all fields, pseudo-header first."""
        if self._is_ours_open(stream):
            self._send_block(stream, blocks.write(fields), shape=ANSWER, ends=ends)

    def respond(self, stream: int, status: int, *, text: str = "", headers: Sequence[tuple[str, str]] = ()) -> None:
        """Answer a request. Any status but 200 carries a short text, and ends our direction."""
        if stream not in self.open_streams:
            return
        fields = [(":status", str(status)), *headers]
        if status == 200:
            self.answer(stream, blocks.encoded(fields), ends=False)
            return
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
        self._keep()
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
            self._send_block(stream, blocks.write(trailers), shape=TRAILERS, ends=True)
            return
        self._h2.end_stream(stream)
        self._end_ours(flow)

    def reset(self, stream: int, code: int) -> None:
        """End the stream in both directions at once."""
        flow = self.open_streams.get(stream)
        if flow is not None:
            self._h2.reset_stream(stream, code)
            self._forget(flow)

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
            self._keep()
            self._out += frames.goaway(last=frames.MAX_STREAM, code=NO_ERROR)
        self.is_draining = True

    def close(self, *, code: int = NO_ERROR) -> None:
        """Say goodbye: the connection is closed after this."""
        if not self.is_ended:
            self._keep()
            self._out += frames.goaway(last=self._h2.highest_inbound_stream_id, code=code)
        self.is_ended = True
        self._end_all()

    def take_preface(self, piece: bytes) -> None:
        self._report(self._translated(piece))

    def take_frame(self, frame: bytes) -> None:
        kind = frame[3]
        self.idle.look_at(frame)
        if not self.is_greeted and kind != frames.SETTINGS:
            raise FrameError("another frame than settings first", code=PROTOCOL_ERROR)
        if self._blocks.takes(kind):
            block = self._blocks.feed(frame)
            self._report(self._receive_block(block) if block else ())
        elif kind == frames.WINDOW_UPDATE:
            self._report(self._update(frame))
        elif kind == frames.GOAWAY:
            last, code = frames.read_goaway(frame)
            self.is_draining = True
            self._report([DrainRequested(last=last, code=code)])
        else:
            self._report(self._translated(frame))

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
            # h2 knows whether it never was, or is over, and what follows from that.
            self._report(self._translated(frames.header(length=0, kind=DATA, flags=flags & END_STREAM, stream=stream)))
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
            self._report(self._translated(frames.header(length=0, kind=DATA, flags=END_STREAM, stream=stream)))

    def _report(self, events: Iterable[Event]) -> None:
        self._runs.clear()  # what comes of the same stream after this is a new event
        self._events += events

    def _update(self, frame: bytes) -> list[Event]:
        """A WINDOW_UPDATE (RFC 9113 §6.9)."""
        if len(frame) != frames.HEADER_LENGTH + 4:
            raise FrameError("a WINDOW_UPDATE frame of a wrong length", code=FRAME_SIZE_ERROR)
        stream = frames.stream_of(frame)
        count = int.from_bytes(frame[frames.HEADER_LENGTH :], "big") & frames.MAX_WINDOW
        if not stream:
            was, self.window_left = self.window_left, self.window_left + count
            if not count or self.window_left > frames.MAX_WINDOW:
                raise FrameError("a window of nothing, or of too much", code=FLOW_CONTROL_ERROR if count else 1)
            return [WindowOpened(stream=0)] if was <= 0 else []
        flow = self.open_streams.get(stream)
        if flow is None:
            return self._translated(frame) if count else []
        was, flow.window = flow.window, flow.window + count
        if not count or flow.window > frames.MAX_WINDOW:
            return self._broken(stream, FLOW_CONTROL_ERROR if count else PROTOCOL_ERROR)
        return [WindowOpened(stream=stream)] if was <= 0 else []

    def _broken(self, stream: int, code: int) -> list[Event]:
        """The peer has done to one stream what it must not."""
        self.reset(stream, code)
        return [StreamReset(stream=stream, code=code)]

    def _translated(self, data: bytes) -> list[Event]:
        return [event for theirs in self._h2.receive_data(data) for event in self._translate(theirs)]

    def _receive_block(self, block: Block) -> Iterable[Event]:
        """Show h2 the block's shape, and report the block itself."""
        self.idle.earn()
        stream = block.stream
        status = 0
        shape = REQUEST
        flow = self.open_streams.get(stream)
        if flow is not None and (not self.is_client or flow.is_answered):
            shape = TRAILERS
        elif self.is_client:
            status = blocks.status(block.fields)
            shape = INFORMATION if 100 <= status < 200 else ANSWER
        is_wrong = block.ends if shape is INFORMATION else shape is TRAILERS and not block.ends
        if is_wrong and flow is not None and not flow.is_ended_by_peer:
            # An end where none may be, or none where one must be (RFC 9113 §8.1): of this stream alone.
            return self._broken(stream, PROTOCOL_ERROR)
        shown = frames.headers(stream=stream, block=SHOWN[shape], ends=block.ends, size=frames.MAX_LENGTH)
        events: list[Event] = []
        for theirs in self._h2.receive_data(shown):
            match theirs:
                case h2.events.RequestReceived():
                    events += self._opened(block)
                case h2.events.TrailersReceived() if stream in self.open_streams:
                    events.append(TrailersReceived(stream=stream, fields=block.fields))
                case h2.events.InformationalResponseReceived() if stream in self.open_streams:
                    events.append(InformationReceived(stream=stream, status=status, fields=block.fields))
                case h2.events.ResponseReceived() if flow is not None:
                    flow.is_answered = True
                    events.append(ResponseReceived(stream=stream, status=status, fields=block.fields))
                case _:
                    events += self._translate(theirs)
        return events

    def _translate(self, event: h2.events.Event) -> Iterable[Event]:
        match event:
            case h2.events.RemoteSettingsChanged():
                self.is_greeted = True
                self.limit = self._h2.remote_settings.max_concurrent_streams
                self.frame_size = self._h2.remote_settings.max_frame_size
                self._resize(self._h2.remote_settings.initial_window_size)
                return [LimitChanged(streams=self.limit), WindowOpened(stream=0)]
            case h2.events.SettingsAcknowledged():
                for flow in self.open_streams.values():
                    flow.allowed -= self._unread
                self._unread = 0
            case h2.events.StreamEnded(stream_id=stream) if stream in self.open_streams:
                flow = self.open_streams[stream]
                flow.is_ended_by_peer = True
                self._close_if_over(flow)
                return [StreamEnded(stream=stream)]
            case h2.events.StreamReset(stream_id=stream) if stream in self.open_streams:
                self._forget(self.open_streams[stream])
                return [StreamReset(stream=stream, code=int(event.error_code or 0))]
        return []

    def _resize(self, window: int) -> None:
        """The peer gives all streams another window (RFC 9113 §6.9.2)."""
        change = window - self._first_window
        self._first_window = window
        for flow in self.open_streams.values():
            flow.window += change
            if flow.window > frames.MAX_WINDOW:
                raise FrameError("a window of too much", code=FLOW_CONTROL_ERROR)

    def _opened(self, block: Block) -> Iterable[Event]:
        stream = block.stream
        if self.is_draining:
            self._h2.reset_stream(stream, REFUSED_STREAM)
            return []
        flow = self._add(stream)
        method, path = (blocks.text(block.fields, name) for name in (b":method", b":path"))
        return [StreamOpened(stream=stream, method=method, path=path, fields=block.fields, flow=flow)]

    def _ask(self, block: bytes, *, ends: bool) -> int:
        stream = self._h2.get_next_available_stream_id()
        self._add(stream)
        self._send_block(stream, block, shape=REQUEST, ends=ends)
        return stream

    def _send_block(self, stream: int, block: bytes, *, shape: Shape, ends: bool) -> None:
        self._keep()
        self._h2.send_headers(stream, shape, end_stream=ends)
        self._h2.clear_outbound_data_buffer()  # of the shape, and of nothing else
        self._out += frames.headers(stream=stream, block=block, ends=ends, size=self._h2.max_outbound_frame_size)
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

    def _end_ours(self, flow: Flow) -> None:
        flow.is_ended_by_us = True
        self._close_if_over(flow)

    def _close_if_over(self, flow: Flow) -> None:
        if flow.is_ended_by_peer and flow.is_ended_by_us:
            self._forget(flow)

    def _forget(self, flow: Flow) -> None:
        flow.is_over = True
        self._wide_left += flow.width - self._stream_window
        self.open_streams.pop(flow.number, None)

    def _end_all(self) -> None:
        for flow in self.open_streams.values():
            flow.is_over = True
        self.open_streams.clear()

    def _keep(self) -> None:
        self._out += self._h2.data_to_send()
