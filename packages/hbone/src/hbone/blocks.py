"""Header blocks of HTTP/2 as fields: puts them together out of frames, and writes them; knows no stream's state.

Received blocks pass hpack's decoder. Sent ones are literals without indexing (RFC 7541 §6.2.2): no state is kept of
what was sent, so that nothing of one user's request can be guessed from the size of another's, and it costs less.
"""

from __future__ import annotations

import sys

from hbone import frames
from hbone.events import Fields
from hbone.frames import CONTINUATION, END_HEADERS, END_STREAM, HEADERS, PADDED, FrameError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from hpack import Decoder

PUSH_PROMISE = 0x5
PRIORITY = 0x20
# A block must be unpacked whole, or the connection is over: these bounds are above those that are answered by 431.
MAX_BLOCK = 128 * 1024
MAX_UNPACKED = 256 * 1024
MAX_KNOWN, MAX_KNOWN_BLOCK = 16, 4096  # blocks that are remembered, and their bytes
SIZE_UPDATE, SIZE_UPDATE_MASK = 0x20, 0xE0  # RFC 7541 §6.3: such a block changes the table
MAX_REMEMBERED, MAX_NAMES = 64, 1024  # bytes of a name, and how many
PROTOCOL_ERROR, FRAME_SIZE_ERROR, COMPRESSION_ERROR, ENHANCE_YOUR_CALM = 0x1, 0x6, 0x9, 0xB
# Never put into a table by whoever hands them on, either (RFC 7541 §7.1.3).
SECRETS = frozenset({b"authorization", b"cookie", b"set-cookie", b"x-serverless-authorization"})
PLAIN, NEVER_INDEXED = b"\x00", b"\x10"
ANSWERED: Fields = ((b":status", b"200"),)
# What a tunnel is answered with, by those who keep no table, and by those who do.
STATUS_200 = b"\x88"  # RFC 7541, appendix A
KNOWN = {b"\x00\x07:status\x03200": ANSWERED, STATUS_200: ANSWERED}


class Block:
    """One whole header block."""

    __slots__ = ("ends", "fields", "stream")

    def __init__(self, *, stream: int, fields: Fields, ends: bool) -> None:
        self.stream = stream
        self.fields = fields
        self.ends = ends


def decoder() -> Decoder:
    """hpack's. Its import takes as long as the rest of a start, and most clients of tunnels never need it."""
    import logging

    import hpack

    # At debug level it logs every header, tokens among them.
    logging.getLogger("hpack").setLevel(logging.WARNING)
    return hpack.Decoder(max_header_list_size=MAX_UNPACKED)


class Reader:
    """Puts blocks together; while one is open, no other frame may come (RFC 9113 §6.10)."""

    def __init__(self) -> None:
        self._decoder: Decoder | None = None
        self._stream = 0
        self._ends = False
        self._pieces = bytearray()
        self._known = KNOWN.copy()
        self._put_off = b""

    @property
    def has_put_off(self) -> bool:
        return bool(self._put_off)

    def takes(self, kind: int) -> bool:
        """Whether a frame of this type is ours: a part of a block, or what must not come within one."""
        return kind in (HEADERS, CONTINUATION, PUSH_PROMISE) or self._stream != 0

    def feed(self, frame: bytes) -> Block | None:
        """Take a whole frame; return the block that it completes.

        Raises:
            FrameError: it is out of order, too large, or cannot be unpacked.
        """
        kind, flags = frame[3], frame[4]
        stream = frames.stream_of(frame)
        if kind == PUSH_PROMISE or (kind == CONTINUATION) != (self._stream != 0):
            raise FrameError(f"a frame of type {kind} out of order", code=PROTOCOL_ERROR)
        if not stream or (self._stream and (kind != CONTINUATION or stream != self._stream)):
            raise FrameError(f"headers of stream {stream} out of order", code=PROTOCOL_ERROR)
        if kind == HEADERS:
            self._stream, self._ends = stream, bool(flags & END_STREAM)
        self._pieces += _payload(frame, flags=flags if kind == HEADERS else 0)
        if len(self._pieces) > MAX_BLOCK:
            raise FrameError(f"a header block of more than {MAX_BLOCK} bytes", code=ENHANCE_YOUR_CALM)
        if not flags & END_HEADERS:
            return None
        block = Block(stream=stream, fields=self._unpack(), ends=self._ends)
        self._stream = 0
        self._pieces.clear()
        return block

    def _unpack(self) -> Fields:
        block = bytes(self._pieces)
        # While its table is empty a block means the same each time: a tunnel's is that of the one before.
        is_plain = self._decoder is None or not self._decoder.header_table.dynamic_entries
        if is_plain and (known := self._known.get(block)) is not None:
            return known
        if block.startswith(STATUS_200) and not self._put_off and "hpack" not in sys.modules:
            self._put_off = block
            return ANSWERED
        self.catch_up()
        fields = self._decode(block)
        if is_plain and self._decoder is not None and not self._decoder.header_table.dynamic_entries:
            self._remember(block, fields)
        return fields

    def catch_up(self) -> None:
        """Unpack what was put off: headers of an answer, of which its status was told already. Raises FrameError."""
        block, self._put_off = self._put_off, b""
        if block and [name for name, _ in self._decode(block)].count(b":status") != 1:
            raise FrameError("headers with two statuses", code=PROTOCOL_ERROR)

    def _decode(self, block: bytes) -> Fields:
        if self._decoder is None:
            self._decoder = decoder()
        from hpack.exceptions import HPACKError

        try:
            return tuple(self._decoder.decode(block, raw=True))
        except HPACKError as error:
            raise FrameError(f"headers that cannot be unpacked: {error}", code=COMPRESSION_ERROR) from error

    def _remember(self, block: bytes, fields: Fields) -> None:
        if not block or len(block) > MAX_KNOWN_BLOCK or block[0] & SIZE_UPDATE_MASK == SIZE_UPDATE:
            return
        if len(self._known) >= MAX_KNOWN:
            self._known = KNOWN.copy()
        self._known[block] = fields


def _payload(frame: bytes, *, flags: int) -> bytes:
    start, end = frames.HEADER_LENGTH, len(frame)
    if flags & PADDED:
        if start == end:
            raise FrameError("padding without a length", code=FRAME_SIZE_ERROR)
        end -= frame[start]
        start += 1
    if flags & PRIORITY:
        start += 5
        if start > len(frame):
            raise FrameError("a priority that is too short", code=FRAME_SIZE_ERROR)
    if start > end:
        raise FrameError("more padding than headers", code=PROTOCOL_ERROR)
    return frame[start:end]


def write(fields: Iterable[tuple[bytes, bytes]], *, never_indexed: bool = False) -> bytes:
    """The fields as a header block."""
    out = bytearray()
    for name, value in fields:
        written = _names.get((name, never_indexed))
        out += _name(name, never_indexed) if written is None else written
        out += _length(len(value))
        out += value
    return bytes(out)


def _name(name: bytes, never_indexed: bool) -> bytes:
    is_secret = never_indexed or name in SECRETS
    written = (NEVER_INDEXED if is_secret else PLAIN) + _length(len(name)) + name
    # Remembered, but for those that somebody has made up to fill our memory.
    if len(name) <= MAX_REMEMBERED:
        if len(_names) >= MAX_NAMES:
            _names.clear()
        _names[name, never_indexed] = written
    return written


_names: dict[tuple[bytes, bool], bytes] = {}


def _length(number: int) -> bytes:
    """A length in seven bits and as many more as it needs (RFC 7541 §5.1), without Huffman's code."""
    if number < 127:
        return bytes((number,))
    out = bytearray((127,))
    number -= 127
    while number >= 128:
        out.append(number % 128 | 128)
        number //= 128
    out.append(number)
    return bytes(out)


def encoded(fields: Iterable[tuple[str, str]]) -> Fields:
    """The fields as bytes."""
    return tuple((name.encode(), value.encode()) for name, value in fields)


def text(fields: Fields, name: bytes) -> str:
    """The last value of that name as text; what is not ASCII stays visible, and matches nothing of ours."""
    return next((str(value, "latin-1") for found, value in reversed(fields) if found == name), "")


def status(fields: Fields) -> int:
    """The status of an answer; what is none is 0."""
    values = [value for name, value in fields if name == b":status"]
    is_status = len(values) == 1 and len(values[0]) == 3 and values[0].isdigit() and values[0][:1] != b"0"
    return int(values[0]) if is_status else 0
