"""What a client of one tunnel says first, written without the core: the server works on it while the core is imported.

The same bytes as the core's own, and a test holds that.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hbone.urls import URL

# HTTP/2's preface; settings: streams, window, frame size, header list, no push; a window for the connection.
BEGINNING = (
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    b"\x00\x00\x1e\x04\x00\x00\x00\x00\x00"
    b"\x00\x03\x00\x00\x03\xe8\x00\x04\x00\x04\x00\x00\x00\x05\x00\x10\x00\x00\x00\x06\x00\x01\x00\x00\x00\x02\x00\x00\x00\x00"
    b"\x00\x00\x04\x08\x00\x00\x00\x00\x00\x00\xff\x00\x01"
)
LONGEST = 16384  # bytes of a frame that every server takes
PLAIN, NEVER_INDEXED = b"\x00", b"\x10"


def first_flight(url: URL, *, header: str, token: str | None) -> bytes:
    """The connection's beginning, and the request; nothing when its headers do not fit into a frame."""
    pseudo = ((":method", "POST"), (":scheme", url.scheme), (":authority", url.authority), (":path", url.path))
    block = b"".join(PLAIN + _text(name) + _text(value) for name, value in pseudo)
    if token:
        block += NEVER_INDEXED + _text(header) + _text(f"Bearer {token}")
    if len(block) > LONGEST:
        return b""
    return BEGINNING + len(block).to_bytes(3, "big") + b"\x01\x04\x00\x00\x00\x01" + block


def _text(text: str) -> bytes:
    """A string literal (RFC 7541 §5.2) without Huffman's code."""
    data = text.encode()
    if len(data) < 127:
        return bytes((len(data),)) + data
    length, rest = bytearray((127,)), len(data) - 127
    while rest >= 128:
        length.append(rest % 128 | 128)
        rest //= 128
    length.append(rest)
    return bytes(length) + data
