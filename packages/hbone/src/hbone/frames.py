"""HTTP/2 frames as bytes: what they are about, and those that carry something."""

from __future__ import annotations

import struct

PREFACE_LENGTH = 24  # RFC 9113 §3.4: what a client sends before its first frame
HEADER_LENGTH = 9
# RFC 9113 §4.2: what we accept of payload, which is handed on as it comes, and announce; and of all other frames,
# which are put together.
MAX_LENGTH = 1024 * 1024
MAX_WHOLE = 256 * 1024
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE = 0x0, 0x1, 0x2, 0x3, 0x4, 0x5
PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0x6, 0x7, 0x8, 0x9
END_STREAM, END_HEADERS, PADDED = 0x1, 0x4, 0x8
MAX_STREAM = 2**31 - 1
MAX_WINDOW = 2**31 - 1
HEADER = struct.Struct(">HBBBI")  # the length in two pieces, type, flags, stream
_UPDATE = struct.Struct(">HBBBII")


class FrameError(Exception):
    """A frame that RFC 9113 does not allow; ``code`` is its error code of §7."""

    def __init__(self, reason: str, *, code: int) -> None:
        super().__init__(reason)
        self.code = code


def header(*, length: int, kind: int, flags: int, stream: int) -> bytes:
    """A frame's first nine bytes."""
    return HEADER.pack(length >> 8, length & 0xFF, kind, flags, stream)


def window_update(*, stream: int, count: int) -> bytes:
    """A WINDOW_UPDATE frame (RFC 9113 §6.9); stream 0 is the connection."""
    return _UPDATE.pack(0, 4, WINDOW_UPDATE, 0, stream, count)


def reset(*, stream: int, code: int) -> bytes:
    """A RST_STREAM frame (RFC 9113 §6.4)."""
    return _UPDATE.pack(0, 4, RST_STREAM, 0, stream, code)


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
    """Whether a whole frame that is not DATA carries nothing: neither a piece of headers, nor an end."""
    kind, flags, length = frame[3], frame[4], len(frame) - HEADER_LENGTH
    if kind in (HEADERS, CONTINUATION):
        return not length and not flags & END_HEADERS
    return kind != GOAWAY
