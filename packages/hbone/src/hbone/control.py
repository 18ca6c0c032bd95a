"""Frames that are about the connection, or end a stream: read strictly (RFC 9113 §6), and written. No state."""

from __future__ import annotations

import struct

from hbone import frames
from hbone.frames import HEADER_LENGTH, MAX_STREAM, MAX_WINDOW, FrameError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
ACK = 0x1
HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS = 0x1, 0x2, 0x3
INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE, MAX_HEADER_LIST_SIZE = 0x4, 0x5, 0x6
LEAST_FRAME, MOST_FRAME = 2**14, 2**24 - 1
PROTOCOL_ERROR, FLOW_CONTROL_ERROR, FRAME_SIZE_ERROR = 0x1, 0x3, 0x6
_SETTING = struct.Struct(">HI")


def settings(values: Mapping[int, int]) -> bytes:
    """A SETTINGS frame."""
    body = b"".join(_SETTING.pack(name, value) for name, value in values.items())
    return frames.header(length=len(body), kind=frames.SETTINGS, flags=0, stream=0) + body


SETTINGS_ACK = frames.header(length=0, kind=frames.SETTINGS, flags=ACK, stream=0)


def read_settings(frame: bytes, *, is_client: bool) -> dict[int, int] | None:
    """What the peer wants from now on, or None: it has read what we want. Raises FrameError."""
    body = memoryview(frame)[HEADER_LENGTH:]
    if frames.stream_of(frame):
        raise FrameError("settings of a stream", code=PROTOCOL_ERROR)
    if frame[4] & ACK:
        if body:
            raise FrameError("settings in an acknowledgement", code=FRAME_SIZE_ERROR)
        return None
    if len(body) % _SETTING.size:
        raise FrameError("settings of a broken length", code=FRAME_SIZE_ERROR)
    values = dict(_SETTING.iter_unpack(body))
    if values.get(ENABLE_PUSH, 0) > (0 if is_client else 1):
        raise FrameError("a setting of push that must not be", code=PROTOCOL_ERROR)
    if values.get(INITIAL_WINDOW_SIZE, 0) > MAX_WINDOW:
        raise FrameError("a window of too much", code=FLOW_CONTROL_ERROR)
    if not LEAST_FRAME <= values.get(MAX_FRAME_SIZE, LEAST_FRAME) <= MOST_FRAME:
        raise FrameError("a frame size out of bounds", code=PROTOCOL_ERROR)
    return values


def pong(frame: bytes) -> bytes:
    """The answer to a PING; nothing to an answer. Raises FrameError."""
    if frames.stream_of(frame):
        raise FrameError("a ping of a stream", code=PROTOCOL_ERROR)
    if len(frame) != HEADER_LENGTH + 8:
        raise FrameError("a ping of a wrong length", code=FRAME_SIZE_ERROR)
    if frame[4] & ACK:
        return b""
    return frames.header(length=8, kind=frames.PING, flags=ACK, stream=0) + frame[HEADER_LENGTH:]


def read_window_update(frame: bytes) -> tuple[int, int]:
    """Which stream's window grows by how much. Raises FrameError."""
    if len(frame) != HEADER_LENGTH + 4:
        raise FrameError("a window update of a wrong length", code=FRAME_SIZE_ERROR)
    return frames.stream_of(frame), int.from_bytes(frame[HEADER_LENGTH:], "big") & MAX_WINDOW


def read_reset(frame: bytes) -> tuple[int, int]:
    """Which stream is reset, with which error code. Raises FrameError."""
    if len(frame) != HEADER_LENGTH + 4:
        raise FrameError("a reset of a wrong length", code=FRAME_SIZE_ERROR)
    return frames.stream_of(frame), int.from_bytes(frame[HEADER_LENGTH:], "big")


def read_goaway(frame: bytes) -> tuple[int, int]:
    """The last stream and the error code of a GOAWAY frame. Raises FrameError."""
    if frames.stream_of(frame):
        raise FrameError("a goodbye of a stream", code=PROTOCOL_ERROR)
    if len(frame) < HEADER_LENGTH + 8:
        raise FrameError("a goodbye that is too short", code=FRAME_SIZE_ERROR)
    last, code = struct.unpack_from(">II", frame, HEADER_LENGTH)
    return last & MAX_STREAM, code


def check_priority(frame: bytes) -> None:
    """It is read by nobody (RFC 9113 §5.3.2). Raises FrameError."""
    if len(frame) != HEADER_LENGTH + 5:
        raise FrameError("a priority of a wrong length", code=FRAME_SIZE_ERROR)
    if not frames.stream_of(frame):
        raise FrameError("a priority of no stream", code=PROTOCOL_ERROR)
