"""HTTP/2 frames as bytes: cuts what arrives into whole frames, and writes the one frame that h2 must not know of."""

from __future__ import annotations

import struct
from collections.abc import Iterator

PREFACE_LENGTH = 24  # RFC 9113 §3.4: what a client sends before its first frame
HEADER_LENGTH = 9
MAX_LENGTH = 16384  # RFC 9113 §4.2: what we accept, as we never announce more
DATA, HEADERS, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0x0, 0x1, 0x7, 0x8, 0x9
END_STREAM, END_HEADERS, PADDED = 0x1, 0x4, 0x8
MAX_STREAM = 2**31 - 1


class FrameError(Exception):
    """A frame that RFC 9113 does not allow; ``code`` is its error code of §7."""

    def __init__(self, reason: str, *, code: int) -> None:
        super().__init__(reason)
        self.code = code


class Splitter:
    """Puts frames together from any pieces."""

    def __init__(self, *, preface: bool) -> None:
        """With ``preface``, the first bytes are a client's preface and are passed through as they come."""
        self._preface_left = PREFACE_LENGTH if preface else 0
        self.is_preface = False  # whether what was yielded last is a piece of it
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the preface in pieces, then whole frames.

        Raises:
            FrameError: a frame longer than we allow.
        """
        self._buffer += data
        while self._preface_left and self._buffer:
            self.is_preface = True
            yield self._take(min(self._preface_left, len(self._buffer)), preface=True)
        while len(self._buffer) >= HEADER_LENGTH:
            self.is_preface = False
            length = int.from_bytes(self._buffer[:3], "big")
            if length > MAX_LENGTH:
                raise FrameError(f"a frame of {length} bytes, {MAX_LENGTH} are allowed", code=0x6)
            if len(self._buffer) < HEADER_LENGTH + length:
                return
            yield self._take(HEADER_LENGTH + length)

    def _take(self, count: int, *, preface: bool = False) -> bytes:
        piece = bytes(self._buffer[:count])
        del self._buffer[:count]
        if preface:
            self._preface_left -= count
        return piece


def headers(*, stream: int, block: bytes, ends: bool, size: int) -> bytes:
    """A header block as HEADERS and CONTINUATION frames of at most ``size`` bytes (RFC 9113 §6.2)."""
    if len(block) <= size:  # the common case
        return struct.pack(">IBI", len(block) << 8 | 0x1, 0x5 if ends else 0x4, stream) + block
    out = bytearray()
    for start in range(0, len(block), size):
        piece = block[start : start + size]
        kind, flags = (0x9, 0) if start else (0x1, int(ends))
        flags |= 0x4 if start + size >= len(block) else 0
        out += struct.pack(">IBI", len(piece) << 8 | kind, flags, stream) + piece
    return bytes(out)


def goaway(*, last: int, code: int) -> bytes:
    """A GOAWAY frame (RFC 9113 §6.8)."""
    return struct.pack(">HBBBIII", 0, 8, GOAWAY, 0, 0, last, code)


def stream_of(frame: bytes) -> int:
    """The number of the stream that a frame is about; 0 is the connection."""
    return int.from_bytes(frame[5:9], "big") & MAX_STREAM


def is_idle(frame: bytes) -> bool:
    """Whether a whole frame carries nothing: neither payload, nor a piece of headers, nor an end."""
    kind, flags, length = frame[3], frame[4], len(frame) - HEADER_LENGTH
    if kind == DATA:
        padding = 1 + frame[HEADER_LENGTH] if flags & PADDED and length else 0
        return length <= padding and not flags & END_STREAM
    if kind in (HEADERS, CONTINUATION):
        return not length and not flags & END_HEADERS
    return kind != GOAWAY


def is_useless_update(frame: bytes) -> bool:
    """Whether it is a WINDOW_UPDATE of 0."""
    is_whole = frame[3] == WINDOW_UPDATE and len(frame) == HEADER_LENGTH + 4
    return is_whole and not int.from_bytes(frame[HEADER_LENGTH:], "big") & MAX_STREAM


def read_goaway(frame: bytes) -> tuple[int, int]:
    """The last stream and the error code of a GOAWAY frame.

    Raises:
        FrameError: it is too short.
    """
    if len(frame) < HEADER_LENGTH + 8:
        raise FrameError("a GOAWAY frame that is too short", code=0x6)
    last, code = struct.unpack_from(">II", frame, HEADER_LENGTH)
    return last & MAX_STREAM, code
