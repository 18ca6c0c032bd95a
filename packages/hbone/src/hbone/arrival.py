"""What arrives on a connection, frame by frame: what it does to the streams, and what is to be reported of it.

What headers say is read and judged where the request is served, and never ends the connection: a front has the
requests of many users in one. Payload is handed on before its frame is whole, and never copied.
"""

from __future__ import annotations

from hbone import blocks, control, frames
from hbone.blocks import Block
from hbone.events import (
    DataReceived,
    DrainRequested,
    Event,
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
from hbone.streams import (
    CONNECTION_WINDOW,
    FLOW_CONTROL_ERROR,
    PROTOCOL_ERROR,
    REFUSED_STREAM,
    SMALL,
    STREAM_CLOSED,
    UNLIMITED,
    Streams,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


class Arrival:
    """The cutter's taker."""

    def __init__(self, streams: Streams) -> None:
        self._streams = streams
        self._events: list[Event] = []
        self._runs: dict[int, DataReceived] = {}  # by stream: payload that has come in one go
        self._preface = control.PREFACE  # what of it is still to come
        self._blocks = blocks.Reader()

    def begin(self) -> list[Event]:
        """What comes from here on is reported in this list."""
        self._runs.clear()
        self._events = []
        return self._events

    def finish(self) -> None:
        """Nothing of it is kept."""
        self._runs.clear()
        self._events = []

    @property
    def has_put_off(self) -> bool:
        """Whether there are headers of which only the status was read."""
        return self._blocks.has_put_off

    def catch_up(self) -> None:
        """Read them. Raises FrameError."""
        self._blocks.catch_up()

    def take_preface(self, piece: bytes) -> None:
        if not self._preface.startswith(piece):
            raise FrameError("another beginning than HTTP/2's", code=PROTOCOL_ERROR)
        self._preface = self._preface[len(piece) :]

    def take_frame(self, frame: bytes) -> None:
        kind = frame[3]
        self._streams.idle.look_at(frame)
        if not self._streams.is_greeted and kind != frames.SETTINGS:
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
            self._streams.out += control.pong(frame)
        elif kind == frames.GOAWAY:
            last, code = control.read_goaway(frame)
            self._streams.is_draining = True
            self._report([DrainRequested(last=last, code=code)])
        elif kind == frames.PRIORITY:
            control.check_priority(frame)
        # What nobody knows is passed over (RFC 9113 §5.5).

    def begin_data(self, stream: int, flags: int, *, length: int, padding: int) -> Flow | None:
        if self._blocks.takes(DATA) or not self._streams.is_greeted:
            raise FrameError("payload out of order", code=PROTOCOL_ERROR)
        if length <= padding and not flags & END_STREAM:
            self._streams.idle.spend()
        self._streams.allowed -= length
        if self._streams.allowed < 0:
            raise FrameError("more payload than the connection's window", code=FLOW_CONTROL_ERROR)
        # Given back on arrival, whoever it is for.
        self._streams.owed += length
        if self._streams.owed >= CONNECTION_WINDOW // 2:
            self._streams.out += frames.window_update(stream=0, count=self._streams.owed)
            self._streams.allowed += self._streams.owed
            self._streams.owed = 0
        flow = self._streams.open_streams.get(stream)
        if flow is None or flow.is_ended_by_peer:
            self._report(self._unwanted(stream, length))
            return None
        if length > max(0, flow.allowed):  # below 0 while the peer did not know yet; nothing is always allowed
            raise FrameError("more payload than the stream's window", code=FLOW_CONTROL_ERROR)
        flow.allowed -= length
        if length < SMALL:
            self._streams.got_small(flow)
        if self._streams.is_client and not flow.is_answered:
            self._report(self._broken(stream, PROTOCOL_ERROR))
            return None
        if padding:  # never handed on
            self._streams.acknowledge(stream, padding)
        return flow

    def take_single(self, stream: int, length: int) -> Flow | None:
        """The quick way for a frame of payload that has come alone and whole: its stream, when nothing else is to be
        done or said. None: nothing was done."""
        streams = self._streams
        flow = streams.open_streams.get(stream)
        if (
            flow is None
            or flow.is_ended_by_peer
            or length > flow.allowed
            or length > streams.allowed
            or streams.owed + length >= CONNECTION_WINDOW // 2
            or self._blocks.takes(DATA)
            or (streams.is_client and not flow.is_answered)
        ):
            return None
        flow.allowed -= length
        streams.allowed -= length
        streams.owed += length
        if length < SMALL:
            streams.got_small(flow)
        return flow

    def take_whole(self, stream: int, payload: memoryview) -> bool:
        """The same for one among others."""
        if self.take_single(stream, len(payload)) is None:
            return False
        run = self._runs.get(stream)
        if run is not None:
            run.pieces.append(payload)
        else:
            run = self._runs[stream] = DataReceived(stream=stream, pieces=[payload])
            self._events.append(run)
        return True

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
        flow = self._streams.open_streams.get(stream)
        if flags & END_STREAM and flow is not None and not flow.is_ended_by_peer:
            self._streams.end_theirs(flow)
            self._report([StreamEnded(stream=stream)])

    def _report(self, events: Iterable[Event]) -> None:
        self._runs.clear()  # what comes of the same stream after this is a new event
        self._events += events

    def _update(self, frame: bytes) -> None:
        stream, count = control.read_window_update(frame)
        if not stream:
            was, self._streams.window_left = self._streams.window_left, self._streams.window_left + count
            if not count or self._streams.window_left > frames.MAX_WINDOW:
                code = FLOW_CONTROL_ERROR if count else PROTOCOL_ERROR
                raise FrameError("a window of nothing, or of too much", code=code)
            if was <= 0:
                self._report([WindowOpened(stream=0)])
            return
        flow = self._streams.open_streams.get(stream)
        if flow is None:
            self._streams.check_known(stream)
            return
        was, flow.window = flow.window, flow.window + count
        if not count or flow.window > frames.MAX_WINDOW:
            self._report(self._broken(stream, FLOW_CONTROL_ERROR if count else PROTOCOL_ERROR))
        elif was <= 0:
            self._report([WindowOpened(stream=stream)])

    def _unwanted(self, stream: int, length: int) -> list[Event]:
        """Payload for a stream that the peer has ended, or that is over. That is no fault of one that we have reset, as
        far as its window went: nothing is given back to that."""
        self._streams.check_known(stream)
        if stream in self._streams.open_streams:
            return self._broken(stream, STREAM_CLOSED)
        if not self._streams.closed.was_reset_by_us(stream):
            self._streams.out += frames.reset(stream=stream, code=STREAM_CLOSED)
            self._streams.closed.add(stream, left=self._streams.stream_window)  # said once
        elif not self._streams.closed.may_send(stream, length):
            raise FrameError("more payload than the window of a stream that is over", code=FLOW_CONTROL_ERROR)
        return []

    def _reset_by_peer(self, frame: bytes) -> list[Event]:
        stream, code = control.read_reset(frame)
        flow = self._streams.open_streams.get(stream)
        if flow is None:
            self._streams.check_known(stream)
            return []
        self._streams.forget(flow)
        return [StreamReset(stream=stream, code=code)]

    def _settle(self, frame: bytes) -> list[Event]:
        """The peer's settings, or that it has read ours."""
        values = control.read_settings(frame, is_client=self._streams.is_client)
        if values is None:
            if not self._streams.is_greeted:
                raise FrameError("an acknowledgement before settings", code=PROTOCOL_ERROR)
            for flow in self._streams.open_streams.values():
                flow.allowed -= self._streams.unread
            self._streams.unread = 0
            return []
        if not self._streams.is_greeted:  # who says nothing of it takes any number
            self._streams.limit = UNLIMITED
        self._streams.is_greeted = True
        self._streams.limit = values.get(control.MAX_CONCURRENT_STREAMS, self._streams.limit)
        self._streams.frame_size = values.get(control.MAX_FRAME_SIZE, self._streams.frame_size)
        self._streams.resize(values.get(control.INITIAL_WINDOW_SIZE, self._streams.first_window))
        self._streams.out += control.SETTINGS_ACK
        return [LimitChanged(streams=self._streams.limit), WindowOpened(stream=0)]

    def _broken(self, stream: int, code: int) -> list[Event]:
        """The peer has done to one stream what it must not."""
        self._streams.reset(stream, code)
        return [StreamReset(stream=stream, code=code)]

    def _receive_block(self, block: Block) -> list[Event]:
        stream = block.stream
        flow = self._streams.open_streams.get(stream)
        if flow is None:
            return self._head_of_another(block)
        if flow.is_ended_by_peer:
            return self._broken(stream, STREAM_CLOSED)
        if self._streams.is_client and not flow.is_answered:
            status = blocks.status(block.fields)
            if 100 <= status < 200:
                self._streams.idle.spend()  # there may be any number of them
                if block.ends:  # an end where none may be (RFC 9113 §8.1): of this stream alone
                    return self._broken(stream, PROTOCOL_ERROR)
                return [InformationReceived(stream=stream, status=status, fields=block.fields)]
            flow.is_answered = True
            self._streams.idle.earn()
            events: list[Event] = [ResponseReceived(stream=stream, status=status, fields=block.fields)]
            return events + self._ended(flow) if block.ends else events
        if not block.ends:  # trailers without an end
            return self._broken(stream, PROTOCOL_ERROR)
        self._streams.idle.earn()
        return [TrailersReceived(stream=stream, fields=block.fields), *self._ended(flow)]

    def _head_of_another(self, block: Block) -> list[Event]:
        """Headers of a stream that is not open: a request, if it is new."""
        stream = block.stream
        if self._streams.is_client or not stream % 2:
            self._streams.check_known(stream)
        if self._streams.is_client or stream <= self._streams.highest:
            if self._streams.closed.was_reset_by_us(stream):
                self._streams.idle.spend()
                return []
            code = STREAM_CLOSED if stream in self._streams.closed else PROTOCOL_ERROR
            raise FrameError(f"headers of stream {stream}, which is over", code=code)
        self._streams.highest = stream
        if self._streams.is_draining or len(self._streams.open_streams) >= self._streams.max_streams:
            self._streams.out += frames.reset(stream=stream, code=REFUSED_STREAM)
            self._streams.closed.add(stream, left=self._streams.stream_window + self._streams.unread)
            self._streams.idle.spend()
            return []
        self._streams.idle.earn()
        flow = self._streams.add(stream)
        method, path = (blocks.text(block.fields, name) for name in (b":method", b":path"))
        events: list[Event] = [StreamOpened(stream=stream, method=method, path=path, fields=block.fields, flow=flow)]
        return events + self._ended(flow) if block.ends else events

    def _ended(self, flow: Flow) -> list[Event]:
        self._streams.end_theirs(flow)
        return [StreamEnded(stream=flow.number)]
