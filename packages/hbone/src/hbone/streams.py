"""The streams of one connection: which are open (RFC 9113 §5.1), and the accounts of their windows (§5.2)."""

from __future__ import annotations

from hbone import frames
from hbone.closed import Closed
from hbone.flow import Flow
from hbone.frames import FrameError
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
# But only up to this while others get little pieces: what is under way is what those wait behind. They were seen not
# longer ago than so many pieces of the stream's.
SHARED_WINDOW = 256 * 1024
SMALL, REMEMBERED = 4 * 1024, 16
# Credit for the connection is given back on arrival, so that a stalled tunnel never holds up the others.
CONNECTION_WINDOW = 16 * 1024 * 1024
DEFAULT_WINDOW = 65535  # RFC 9113 §6.9.2
# Before the peer's SETTINGS are here, how many streams we dare to open (RFC 9113 §6.5.2 recommends no less to servers).
UNKNOWN_LIMIT = 100
UNLIMITED = 2**31 - 1
HEADER_LIST_LIMIT = 64 * 1024


class Streams:
    """The state that what comes and what is sent have in common; ``out`` is what is to be written to the peer."""

    def __init__(self, *, client: bool, max_streams: int, stream_window: int) -> None:
        self.is_client = client
        self.is_greeted = False  # the peer's SETTINGS are here, with which HTTP/2 begins (RFC 9113 §3.4)
        self.is_draining = False  # one of both sides has sent GOAWAY
        self.limit = UNKNOWN_LIMIT  # streams that the peer takes at once
        self.idle = IdleFrames()
        self.frame_size = 16384  # of DATA that the peer takes
        self.open_streams: dict[int, Flow] = {}
        self.window_left = DEFAULT_WINDOW  # bytes that we may send on all streams together
        self.first_window = DEFAULT_WINDOW  # of each stream that we send on
        self.stream_window = stream_window
        # Before the peer has read what we allow, it may send what the protocol allows.
        self.unread = max(0, DEFAULT_WINDOW - stream_window)
        self.allowed = CONNECTION_WINDOW  # bytes that the peer may send on all streams together
        self.owed = 0  # bytes of it that were used, and not yet given back
        self.wide_left = WIDE_WINDOWS
        self.small_flow: Flow | None = None  # who has got little last
        self.small_turns = 0  # while it is not 0, that was not long ago
        self.max_streams = max_streams
        self.next = 1  # the number of the next stream that a client opens
        self.highest = 0  # of those that were opened
        self.closed = Closed()
        self.out = bytearray()

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

    def reset(self, stream: int, code: int) -> None:
        """End the stream in both directions at once."""
        flow = self.open_streams.get(stream)
        if flow is not None:
            self.out += frames.reset(stream=stream, code=code)
            self.forget(flow, is_reset_by_us=True)

    def acknowledge(self, stream: int, count: int) -> None:
        """Say that ``count`` received bytes have been handed on, so that the peer may send as many again."""
        flow = self.open_streams.get(stream)
        if flow is not None and not flow.is_ended_by_peer:
            flow.owed += count
            if flow.owed >= flow.width // 4:
                self.give_back(flow)

    def took(self, flow: Flow, count: int, *, is_quick: bool) -> None:
        """The same, from who knows whether all was handed on at once: then the stream's window grows, else it
        shrinks back to what it began with."""
        if flow.is_over or flow.is_ended_by_peer:
            return
        flow.owed += count
        most = self._width_for(flow) if is_quick else self.stream_window
        if flow.width > most:
            cut = min(flow.owed, flow.width - most)
            flow.owed -= cut
            flow.width -= cut
            self.wide_left += cut
        if flow.owed >= flow.width // 4:
            if flow.width < most:
                more = min(flow.width, most - flow.width, self.wide_left)
                flow.width += more
                flow.owed += more
                self.wide_left -= more
            self.give_back(flow)

    def _width_for(self, flow: Flow) -> int:
        if self.small_turns <= 0 or self.small_flow is flow:
            return WIDE_WINDOW
        self.small_turns -= 1
        return max(SHARED_WINDOW, self.stream_window)

    def got_small(self, flow: Flow) -> None:
        """The peer has sent little: it must not wait behind much of the others'."""
        self.small_flow, self.small_turns = flow, REMEMBERED

    def give_back(self, flow: Flow) -> None:
        self.out += frames.window_update(stream=flow.number, count=flow.owed)
        flow.allowed += flow.owed
        flow.owed = 0

    def check_known(self, stream: int) -> None:
        """Raises FrameError for a stream that never was."""
        is_opened = stream < self.next if self.is_client else stream <= self.highest
        if not is_opened or not stream % 2:
            raise FrameError(f"a frame of stream {stream}, which was never opened", code=PROTOCOL_ERROR)

    def resize(self, window: int) -> None:
        """The peer gives all streams another window (RFC 9113 §6.9.2)."""
        change = window - self.first_window
        self.first_window = window
        for flow in self.open_streams.values():
            flow.window += change
            if flow.window > frames.MAX_WINDOW:
                raise FrameError("a window of too much", code=FLOW_CONTROL_ERROR)

    @property
    def last(self) -> int:
        """The last stream of the peer's that we have looked at."""
        return 0 if self.is_client else self.highest

    def is_ours_open(self, stream: int) -> bool:
        flow = self.open_streams.get(stream)
        return flow is not None and not flow.is_ended_by_us

    def add(self, stream: int) -> Flow:
        flow = Flow(number=stream, window=self.first_window, allowed=self.stream_window + self.unread)
        flow.width = self.stream_window
        self.open_streams[stream] = flow
        return flow

    def end_theirs(self, flow: Flow) -> None:
        """The peer has sent all."""
        flow.is_ended_by_peer = True
        self.close_if_over(flow)

    def end_ours(self, flow: Flow) -> None:
        flow.is_ended_by_us = True
        self.close_if_over(flow)

    def close_if_over(self, flow: Flow) -> None:
        if flow.is_ended_by_peer and flow.is_ended_by_us:
            self.forget(flow)

    def forget(self, flow: Flow, *, is_reset_by_us: bool = False) -> None:
        flow.is_over = True
        self.wide_left += flow.width - self.stream_window
        self.open_streams.pop(flow.number, None)
        self.closed.add(flow.number, left=max(0, flow.allowed) if is_reset_by_us else None)

    def end_all(self) -> None:
        for flow in self.open_streams.values():
            flow.is_over = True
        self.open_streams.clear()
