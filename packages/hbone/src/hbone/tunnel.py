"""The core of the tunnel: HTTP/2 without any input or output. Bytes in, events out, ``data_to_send()`` back.

Everything that decides what goes over the wire lives here; sockets, time and tasks live in ``session``. h2 keeps the
protocol's state, with two exceptions. It takes a GOAWAY for the end of the connection, so that a graceful one
(RFC 9113 §6.8: running streams go on) never reaches it, in either direction. And it ends a connection for headers that
one request has wrong, where a front has the requests of many users in one connection: so h2 is shown headers of the
same shape only (a request, an information, an answer, trailers), in both directions, and what they say is read and
judged where the request is served.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence

import h2.events
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes, Settings

from hbone import blocks, frames
from hbone.blocks import Block
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
from hbone.idle import IdleFrames
from hbone.shapes import ANSWER, INFORMATION, REQUEST, SHOWN, TRAILERS, Shape

# Error codes of RFC 9113 §7 that a tunnel uses.
NO_ERROR = 0x0
PROTOCOL_ERROR = 0x1
INTERNAL_ERROR = 0x2
REFUSED_STREAM = 0x7
CANCEL = 0x8
CONNECT_ERROR = 0xA
ENHANCE_YOUR_CALM = 0xB

MAX_STREAMS = 1000
# What a peer may send on one stream before we have handed it on: the memory that one stalled tunnel can hold.
STREAM_WINDOW = 256 * 1024
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
        self.open_streams: set[int] = set()
        self._stream_window = stream_window
        self._ended_by_peer: set[int] = set()
        self._ended_by_us: set[int] = set()
        self._answered: set[int] = set()  # by the server, as a client sees it
        self._owed: dict[int, int] = {}  # bytes acknowledged and not yet given back, by stream; 0 is the connection
        self._out = bytearray()
        self._splitter = frames.Splitter(preface=not client)
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
                SettingCodes.MAX_HEADER_LIST_SIZE: HEADER_LIST_LIMIT,
                **({SettingCodes.ENABLE_PUSH: 0} if client else {}),
            },
        )
        self._h2.initiate_connection()
        self._h2.increment_flow_control_window(CONNECTION_WINDOW - DEFAULT_WINDOW)

    def receive(self, data: bytes) -> list[Event]:
        """Take bytes of the peer, in any pieces; return what they mean."""
        events: list[Event] = []
        if self.is_ended:
            return events
        try:
            for frame in self._splitter.feed(data):
                events += self._receive_frame(frame)
        except (ProtocolError, frames.FrameError) as error:
            self._keep()
            if isinstance(error, frames.FrameError):
                self._out += frames.goaway(last=self._h2.highest_inbound_stream_id, code=error.code)
            self.is_ended = True
            self.open_streams.clear()
            events.append(ConnectionEnded(reason=str(error)))
        return events

    @property
    def unsent(self) -> int:
        """Bytes that wait to be asked for; of the last stream's payload, h2 may still hold some."""
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

    def request(self, fields: Fields, *, ends: bool) -> int:
        """Ask for anything: all fields, pseudo-headers first. Return the stream's number."""
        return self._ask(blocks.write(fields), ends=ends)

    def inform(self, stream: int, fields: Fields) -> None:
        """Say something before the answer."""
        if stream in self.open_streams and stream not in self._ended_by_us:
            self._send_block(stream, blocks.write(fields), shape=INFORMATION, ends=False)

    def answer(self, stream: int, fields: Fields, *, ends: bool) -> None:
        """Answer a request: all fields, pseudo-header first."""
        if stream in self.open_streams and stream not in self._ended_by_us:
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
        if stream not in self.open_streams or stream in self._ended_by_us:
            return 0
        return max(0, self._h2.local_flow_control_window(stream))

    def send(self, stream: int, data: bytes) -> None:
        """Send payload, no more than ``window`` says."""
        size = self._h2.max_outbound_frame_size
        for start in range(0, len(data), size):
            self.idle.earn()
            self._h2.send_data(stream, data[start : start + size])

    def end(self, stream: int, trailers: Fields = ()) -> None:
        """Say that we have sent all; the peer's direction goes on."""
        if stream not in self.open_streams or stream in self._ended_by_us:
            return
        if trailers:
            self._send_block(stream, blocks.write(trailers), shape=TRAILERS, ends=True)
            return
        self._h2.end_stream(stream)
        self._end_ours(stream)

    def reset(self, stream: int, code: int) -> None:
        """End the stream in both directions at once."""
        if stream in self.open_streams:
            self._h2.reset_stream(stream, code)
            self._forget(stream)

    def acknowledge(self, stream: int, count: int) -> None:
        """Say that ``count`` received bytes have been handed on, so that the peer may send as many again."""
        if stream in self.open_streams and stream not in self._ended_by_peer:
            self._give_back(stream, count, at=self._stream_window // 2)

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
        self.open_streams.clear()

    def _receive_frame(self, frame: bytes) -> Iterable[Event]:
        if self._splitter.is_preface:
            return self._translated(frame)
        self.idle.look_at(frame)
        if frame[3] == frames.GOAWAY:
            last, code = frames.read_goaway(frame)
            self.is_draining = True
            return [DrainRequested(last=last, code=code)]
        if self._blocks.takes(frame[3]):
            if not self.is_greeted:
                raise frames.FrameError("headers before settings", code=PROTOCOL_ERROR)
            block = self._blocks.feed(frame)
            return self._receive_block(block) if block else []
        if frames.is_useless_update(frame) and (stream := frames.stream_of(frame)):
            # A stream's error (RFC 9113 §6.9), which h2 takes for the connection's.
            if stream not in self.open_streams:
                return []
            self.reset(stream, PROTOCOL_ERROR)
            return [StreamReset(stream=stream, code=PROTOCOL_ERROR)]
        return self._translated(frame)

    def _translated(self, data: bytes) -> list[Event]:
        return [event for theirs in self._h2.receive_data(data) for event in self._translate(theirs)]

    def _receive_block(self, block: Block) -> Iterable[Event]:
        """Show h2 the block's shape, and report the block itself."""
        self.idle.earn()
        stream = block.stream
        status = 0
        shape = REQUEST
        if stream in self.open_streams and (not self.is_client or stream in self._answered):
            shape = TRAILERS
        elif self.is_client:
            status = blocks.status(block.fields)
            shape = INFORMATION if 100 <= status < 200 else ANSWER
        is_wrong = block.ends if shape is INFORMATION else shape is TRAILERS and not block.ends
        if is_wrong and stream in self.open_streams and stream not in self._ended_by_peer:
            # An end where none may be, or none where one must be (RFC 9113 §8.1): of this stream alone.
            self.reset(stream, PROTOCOL_ERROR)
            return [StreamReset(stream=stream, code=PROTOCOL_ERROR)]
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
                case h2.events.ResponseReceived() if stream in self.open_streams:
                    self._answered.add(stream)
                    events.append(ResponseReceived(stream=stream, status=status, fields=block.fields))
                case _:
                    events += self._translate(theirs)
        return events

    def _translate(self, event: h2.events.Event) -> Iterable[Event]:
        match event:
            case h2.events.DataReceived():
                return self._received(event)
            case h2.events.RemoteSettingsChanged():
                self.is_greeted = True
                self.limit = self._h2.remote_settings.max_concurrent_streams
                return [LimitChanged(streams=self.limit), WindowOpened(stream=0)]
            case h2.events.WindowUpdated(stream_id=stream) if not stream or stream in self.open_streams:
                return [WindowOpened(stream=stream or 0)]
            case h2.events.StreamEnded(stream_id=stream) if stream in self.open_streams:
                self._ended_by_peer.add(stream)
                self._close_if_over(stream)
                return [StreamEnded(stream=stream)]
            case h2.events.StreamReset(stream_id=stream) if stream in self.open_streams:
                self._forget(stream)
                return [StreamReset(stream=stream, code=int(event.error_code or 0))]
        return []

    def _opened(self, block: Block) -> Iterable[Event]:
        stream = block.stream
        if self.is_draining:
            self._h2.reset_stream(stream, REFUSED_STREAM)
            return []
        self.open_streams.add(stream)
        method, path = (blocks.text(block.fields, name) for name in (b":method", b":path"))
        return [StreamOpened(stream=stream, method=method, path=path, fields=block.fields)]

    def _received(self, event: h2.events.DataReceived) -> Iterable[Event]:
        stream, length = event.stream_id or 0, event.flow_controlled_length or 0
        data = event.data or b""
        self._give_back(0, length, at=CONNECTION_WINDOW // 2)
        if stream not in self.open_streams:
            return []
        # Padding is never handed on, so it is acknowledged here.
        self.acknowledge(stream, length - len(data))
        return [DataReceived(stream=stream, data=data)] if data else []

    def _give_back(self, stream: int, count: int, *, at: int) -> None:
        owed = self._owed.get(stream, 0) + count
        if owed >= at:
            # The stream may have just been closed by a frame later in the same batch.
            with contextlib.suppress(ProtocolError):
                self._h2.increment_flow_control_window(owed, stream or None)
            owed = 0
        self._owed[stream] = owed

    def _ask(self, block: bytes, *, ends: bool) -> int:
        stream = self._h2.get_next_available_stream_id()
        self.open_streams.add(stream)
        self._send_block(stream, block, shape=REQUEST, ends=ends)
        return stream

    def _send_block(self, stream: int, block: bytes, *, shape: Shape, ends: bool) -> None:
        self._keep()
        self._h2.send_headers(stream, shape, end_stream=ends)
        self._h2.clear_outbound_data_buffer()  # of the shape, and of nothing else
        self._out += frames.headers(stream=stream, block=block, ends=ends, size=self._h2.max_outbound_frame_size)
        if ends:
            self._end_ours(stream)

    def _end_ours(self, stream: int) -> None:
        self._ended_by_us.add(stream)
        self._close_if_over(stream)

    def _close_if_over(self, stream: int) -> None:
        if stream in self._ended_by_peer and stream in self._ended_by_us:
            self._forget(stream)

    def _forget(self, stream: int) -> None:
        self.open_streams.discard(stream)
        self._ended_by_peer.discard(stream)
        self._ended_by_us.discard(stream)
        self._answered.discard(stream)
        self._owed.pop(stream, None)

    def _keep(self) -> None:
        self._out += self._h2.data_to_send()
