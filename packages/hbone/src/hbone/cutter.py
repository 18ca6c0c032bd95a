"""Cuts what arrives into frames: payload passes through in the pieces that it comes in, all else is put together."""

from __future__ import annotations

from hbone import frames
from hbone.flow import Flow
from hbone.frames import DATA, HEADER, HEADER_LENGTH, MAX_LENGTH, MAX_STREAM, MAX_WHOLE, PADDED, FrameError

FRAME_SIZE_ERROR, PROTOCOL_ERROR = 0x6, 0x1
LONG = 32 * 1024  # bytes of payload that are worth another way than by memory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    class Taker(Protocol):
        """Who is given the frames. Each method may raise FrameError, or h2's ProtocolError."""

        def take_preface(self, piece: bytes) -> None:
            """A piece of what a client begins with."""

        def take_frame(self, frame: bytes) -> None:
            """A whole frame of any type but DATA."""

        def begin_data(self, stream: int, flags: int, *, length: int, padding: int) -> Flow | None:
            """A DATA frame begins; ``length`` counts its padding, too. None: nobody wants its payload."""

        def take_whole(self, stream: int, payload: memoryview) -> bool:
            """A whole DATA frame without flags, the quick way; False: it is not an ordinary one, and is to be begun."""

        def take_data(self, flow: Flow, piece: memoryview) -> None:
            """The next piece of its payload; the memory is used again afterwards."""

        def end_data(self, stream: int, flags: int) -> None:
            """It is whole."""


class Cutter:
    """The state between two reads: where in which frame we are."""

    def __init__(self, *, preface: bool, taker: Taker) -> None:
        """With ``preface``, the first bytes are a client's preface."""
        self._taker = taker
        self._take_whole = taker.take_whole
        self._preface_left = frames.PREFACE_LENGTH if preface else 0
        self._part = bytearray()  # the beginning of a frame
        self._left = 0  # bytes of payload that are still to come
        self._length = 0  # of the last frame's payload, if that is what it carries
        self._padding = 0
        self._flow: Flow | None = None
        self._stream = 0
        self._flags = 0

    def feed(self, view: memoryview) -> None:
        """Take what has been read. Raises FrameError, ProtocolError."""
        position, size = 0, len(view)
        while position < size:
            if self._left:
                position = self._pass_on(view, position)
            elif self._padding:
                count = min(self._padding, size - position)
                self._padding -= count
                position += count
                if not self._padding:
                    self._taker.end_data(self._stream, self._flags)
            elif self._preface_left:
                # As it comes: who speaks something else is told at once.
                count = min(self._preface_left, size - position)
                self._preface_left -= count
                self._taker.take_preface(bytes(view[position : position + count]))
                position += count
            elif self._part or size - position <= HEADER_LENGTH:
                position = self._put_together(view, position)
            else:
                high, low, kind, flags, stream = HEADER.unpack_from(view, position)
                length = _checked(high << 8 | low, kind)
                end = position + HEADER_LENGTH + length
                if kind == DATA:
                    position = self._payload(view, position, stream, flags, length=length)
                elif end > size:
                    position = self._put_together(view, position)
                else:
                    self._length = 0
                    self._taker.take_frame(bytes(view[position:end]))
                    position = end

    @property
    def long(self) -> tuple[Flow | None, int]:
        """Whose payload came last, if its frame was a long one, and how much of that is still to come."""
        return (self._flow, self._left) if self._length >= LONG else (None, 0)

    def skip(self, count: int) -> None:
        """So many bytes of it have gone another way."""
        self._left -= count
        if not self._left and not self._padding:
            self._taker.end_data(self._stream, self._flags)

    @property
    def is_within(self) -> bool:
        """Whether a frame has begun, and is not whole."""
        return bool(self._left or self._part or self._padding or self._preface_left)

    @property
    def until_header(self) -> int:
        """How many bytes are to come until it is known what follows a frame of payload."""
        return self._left + self._padding + max(1, HEADER_LENGTH - len(self._part))

    def _payload(self, view: memoryview, position: int, stream: int, flags: int, *, length: int) -> int:
        start, end = position + HEADER_LENGTH, position + HEADER_LENGTH + length
        if not flags and end <= len(view) and 0 < length < LONG and self._take_whole(stream, view[start:end]):
            self._length = 0
            return end
        if flags & PADDED:
            return self._put_together(view, position)
        self._begin(stream & MAX_STREAM, flags, length=length, padding=0)
        return start

    def _pass_on(self, view: memoryview, position: int) -> int:
        count = min(self._left, len(view) - position)
        self._left -= count
        if self._flow is not None:
            self._taker.take_data(self._flow, view[position : position + count])
        if not self._left and not self._padding:
            self._taker.end_data(self._stream, self._flags)
        return position + count

    def _put_together(self, view: memoryview, position: int) -> int:
        """Add to a frame of which we have not seen the whole header, or that is needed whole."""
        part = self._part
        while (want := self._wanted()) > len(part):
            if position == len(view):
                return position
            count = min(want - len(part), len(view) - position)
            part += view[position : position + count]
            position += count
        frame = bytes(part)
        part.clear()
        if frame[3] == DATA:
            padding = 1 + frame[HEADER_LENGTH] if frame[4] & PADDED else 0
            stream = int.from_bytes(frame[5:9], "big") & MAX_STREAM
            self._begin(stream, frame[4], length=_length(frame), padding=padding)
        else:
            self._length = 0
            self._taker.take_frame(frame)
        return position

    def _wanted(self) -> int:
        """How many bytes are put together before anything is done with them."""
        part = self._part
        if len(part) < HEADER_LENGTH:
            return HEADER_LENGTH
        length = _checked(_length(part), part[3])
        if part[3] != DATA:
            return HEADER_LENGTH + length
        if not part[4] & PADDED:
            return HEADER_LENGTH
        if not length:
            raise FrameError("padding without a length", code=FRAME_SIZE_ERROR)
        return HEADER_LENGTH + 1

    def _begin(self, stream: int, flags: int, *, length: int, padding: int) -> None:
        if padding > length:
            raise FrameError("more padding than a frame has room for", code=PROTOCOL_ERROR)
        self._stream, self._flags, self._length = stream, flags, length
        self._left, self._padding = length - padding, max(0, padding - 1)  # the padding's length has been read
        self._flow = self._taker.begin_data(stream, flags, length=length, padding=padding)
        if not self._left and not self._padding:
            self._taker.end_data(stream, flags)


def _length(frame: bytes | bytearray) -> int:
    return int.from_bytes(frame[:3], "big")


def _checked(length: int, kind: int) -> int:
    most = MAX_LENGTH if kind == DATA else MAX_WHOLE
    if length > most:
        raise FrameError(f"a frame of {length} bytes, {most} are allowed", code=FRAME_SIZE_ERROR)
    return length
