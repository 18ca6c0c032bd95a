"""The core of the tunnel: HTTP/2 without any input or output. Bytes in, events out, ``data_to_send()`` back.

Everything that decides what goes over the wire is below this module; sockets, time and tasks live in ``session``. What
it is made of: ``cutter`` finds the frames, ``blocks`` unpacks headers by hpack, ``control`` reads the frames without
payload, ``streams`` has the state of the streams and the accounts of their windows, ``arrival`` does to them what has
come, and here is what is sent.

A ProxyCommand waits for these modules: at run time they import nothing that takes long, and hpack when it is needed.
"""

from __future__ import annotations

from hbone import blocks, control, frames
from hbone.arrival import Arrival
from hbone.cutter import Cutter
from hbone.events import ConnectionEnded, Event, Fields
from hbone.flow import Flow
from hbone.frames import DATA, END_STREAM, HEADER, HEADER_LENGTH, FrameError
from hbone.streams import (
    CANCEL,
    CONNECT_ERROR,
    CONNECTION_WINDOW,
    DEFAULT_WINDOW,
    ENHANCE_YOUR_CALM,
    FLOW_CONTROL_ERROR,
    HEADER_LIST_LIMIT,
    INTERNAL_ERROR,
    MAX_STREAMS,
    NO_ERROR,
    PROTOCOL_ERROR,
    REFUSED_STREAM,
    STREAM_CLOSED,
    STREAM_WINDOW,
    UNKNOWN_LIMIT,
    UNLIMITED,
    WIDE_WINDOW,
    WIDE_WINDOWS,
    Streams,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "CANCEL",
    "CONNECTION_WINDOW",
    "CONNECT_ERROR",
    "DEFAULT_WINDOW",
    "ENHANCE_YOUR_CALM",
    "FLOW_CONTROL_ERROR",
    "HEADER_LIST_LIMIT",
    "INTERNAL_ERROR",
    "MAX_STREAMS",
    "NO_ERROR",
    "PROTOCOL_ERROR",
    "REFUSED_STREAM",
    "STREAM_CLOSED",
    "STREAM_WINDOW",
    "UNKNOWN_LIMIT",
    "UNLIMITED",
    "WIDE_WINDOW",
    "WIDE_WINDOWS",
    "Connection",
]

OK = blocks.write(((b":status", b"200"),))


class Connection(Streams):
    """One end of one HTTP/2 connection, client or server."""

    def __init__(self, *, client: bool, max_streams: int = MAX_STREAMS, stream_window: int = STREAM_WINDOW) -> None:
        super().__init__(client=client, max_streams=max_streams, stream_window=stream_window)
        self.is_ended = False  # after ConnectionEnded
        self._arrival = Arrival(self)
        self._cutter = Cutter(preface=not client, taker=self._arrival)
        if client:
            self.out += control.PREFACE
        self.out += control.settings(
            {
                control.MAX_CONCURRENT_STREAMS: max_streams,
                control.INITIAL_WINDOW_SIZE: stream_window,
                control.MAX_FRAME_SIZE: frames.MAX_LENGTH,
                control.MAX_HEADER_LIST_SIZE: HEADER_LIST_LIMIT,
                **({control.ENABLE_PUSH: 0} if client else {}),
            }
        )
        self.out += frames.window_update(stream=0, count=CONNECTION_WINDOW - DEFAULT_WINDOW)

    def receive_single(self, data: memoryview) -> Flow | None:
        """The stream of a whole frame of payload, if that is all of these bytes, and it is an ordinary one; its
        payload is from the tenth byte on. Else None, and the bytes are to be received."""
        size = len(data) - HEADER_LENGTH
        if size <= 0 or self._cutter.is_within or self.is_ended:
            return None
        high, low, kind, flags, stream = HEADER.unpack_from(data)
        if kind or flags or high << 8 | low != size:
            return None
        return self._arrival.take_single(stream, size)

    def receive(self, data: bytes | bytearray | memoryview) -> list[Event]:
        """Take bytes of the peer, in any pieces; return what they mean, which points to them where it is payload."""
        events = self._arrival.begin()
        if self.is_ended:
            return events
        try:
            self._cutter.feed(memoryview(data))
        except FrameError as error:
            events.append(self._broken(error))
        self._arrival.finish()
        return events

    def _broken(self, error: FrameError) -> ConnectionEnded:
        self.out += frames.goaway(last=self.last, code=error.code)
        self.is_ended = True
        self.end_all()
        return ConnectionEnded(reason=str(error))

    @property
    def long(self) -> tuple[Flow | None, int]:
        """Whose payload came last, if its frame was a long one, and how much of that is still to come."""
        return self._cutter.long

    @property
    def until_header(self) -> int:
        """How many bytes are to come until it is known what follows a frame of payload."""
        return self._cutter.until_header

    def skip(self, count: int) -> list[Event]:
        """So many bytes of payload have gone another way; return what follows from it."""
        events = self._arrival.begin()
        self._cutter.skip(count)
        self._arrival.finish()
        return events

    @property
    def has_put_off(self) -> bool:
        """Whether there is something for ``catch_up``: only where hpack has not been needed yet."""
        return self._arrival.has_put_off

    def catch_up(self) -> list[Event]:
        """Read what can wait until nothing else is to be done: the rest of an answer's headers."""
        events: list[Event] = []
        if not self.is_ended:
            try:
                self._arrival.catch_up()
            except FrameError as error:
                events.append(self._broken(error))
        return events

    @property
    def unsent(self) -> int:
        """Bytes that wait to be asked for."""
        return len(self.out)

    def data_to_send(self) -> bytes:
        """What is to be written to the peer now; asking empties it."""
        data = bytes(self.out)
        self.out.clear()
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
        if self.is_ours_open(stream):
            self._send_block(stream, blocks.write(fields), ends=False)

    def answer(self, stream: int, fields: Fields, *, ends: bool) -> None:
        """Answer a request: all fields, pseudo-header first."""
        if self.is_ours_open(stream):
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

    def send(self, stream: int, data: bytes | memoryview) -> None:
        """Send payload, no more than ``window`` says."""
        size = self.frame_size
        for start in range(0, len(data), size):
            piece = data[start : start + size]
            self.out += frames.header(length=len(piece), kind=DATA, flags=0, stream=stream)
            self.out += piece
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
        self.out += frames.header(length=0, kind=DATA, flags=END_STREAM, stream=stream)
        self.end_ours(flow)

    def drain(self) -> None:
        """Take no new stream; running ones go on (RFC 9113 §6.8: the number says that none is given up)."""
        if not self.is_draining:
            self.out += frames.goaway(last=frames.MAX_STREAM, code=NO_ERROR)
        self.is_draining = True

    def close(self, *, code: int = NO_ERROR) -> None:
        """Say goodbye: the connection is closed after this."""
        if not self.is_ended:
            self.out += frames.goaway(last=self.last, code=code)
        self.is_ended = True
        self.end_all()

    def _ask(self, block: bytes, *, ends: bool) -> int:
        stream = self.next
        self.next += 2
        self.add(stream)
        self._send_block(stream, block, ends=ends)
        return stream

    def _send_block(self, stream: int, block: bytes, *, ends: bool) -> None:
        self.out += frames.headers(stream=stream, block=block, ends=ends, size=self.frame_size)
        if ends and (flow := self.open_streams.get(stream)):
            self.end_ours(flow)
