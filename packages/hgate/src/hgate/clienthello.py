"""Reads the server name out of a TLS ClientHello that comes in pieces: decides nothing else, and keeps no bytes.

RFC 8446 §4.1.2 and §5.1: a handshake message may be spread over records, and a record over TCP segments. Today's
hellos carry a post-quantum key share and are larger than a segment, so both happen.
"""

from __future__ import annotations

from dataclasses import dataclass

MAX_SIZE = 16 * 1024  # bytes of records; browsers and Envoys stay below 2 KiB
_HANDSHAKE_RECORD = 22
_CLIENT_HELLO = 1
_MAX_RECORD = 16384  # RFC 8446 §5.1
_SERVER_NAME = 0
_ALPN = 16
_HOST_NAME = 0


class HelloError(Exception):
    """What came is no ClientHello, or one that we do not take."""


class NotTLS(HelloError):
    """Another protocol, or a broken hello."""


class TooBig(HelloError):
    """No end within MAX_SIZE."""


@dataclass(frozen=True, kw_only=True)
class ClientHello:
    """What a client asks for: the host by SNI, empty when it names none, and protocols by ALPN."""

    sni: str
    alpn: tuple[str, ...]


class Parser:
    """Fed with pieces, until ``hello`` is there."""

    def __init__(self) -> None:
        self.hello: ClientHello | None = None
        self._records = bytearray()
        self._message = bytearray()
        self._size = 0

    def feed(self, data: bytes) -> ClientHello | None:
        """Take the next bytes; return the hello when it is whole, ``None`` when more is needed.

        Raises:
            NotTLS: it cannot become a ClientHello any more.
            TooBig: it has not ended within MAX_SIZE.
        """
        if self.hello is not None:
            return self.hello
        self._size += len(data)
        self._records += data
        while self._take_record():
            self.hello = self._whole()
            if self.hello is not None:
                return self.hello
        if self._size > MAX_SIZE:
            raise TooBig(f"no ClientHello within {MAX_SIZE} bytes")
        return None

    def _take_record(self) -> bool:
        """Move one whole record's payload to the message."""
        header = self._records[:5]
        # Said as soon as it is seen: whoever speaks another protocol may wait for our answer after one byte.
        if header[:1] and header[0] != _HANDSHAKE_RECORD:
            raise NotTLS("the first byte is no TLS handshake")
        if header[1:2] and header[1] != 3:
            raise NotTLS("the record's version is no TLS")
        if len(header) < 5:
            return False
        length = int.from_bytes(header[3:5], "big")
        if not 0 < length <= _MAX_RECORD:
            raise NotTLS(f"a record of {length} bytes")
        if len(self._records) < 5 + length:
            return False
        self._message += self._records[5 : 5 + length]
        del self._records[: 5 + length]
        return True

    def _whole(self) -> ClientHello | None:
        if self._message[0] != _CLIENT_HELLO:
            raise NotTLS("the first message is no ClientHello")
        if len(self._message) < 4:
            return None
        length = int.from_bytes(self._message[1:4], "big")
        if length > MAX_SIZE:
            raise TooBig(f"a ClientHello of {length} bytes, {MAX_SIZE} are allowed")
        if len(self._message) < 4 + length:
            return None
        return parse(bytes(self._message[4 : 4 + length]))


def parse(body: bytes) -> ClientHello:
    """Read a whole ClientHello's body.

    Raises:
        NotTLS: it is malformed.
    """
    reader = _Reader(body)
    reader.take(2 + 32)  # legacy version, random
    reader.vector(1)  # session id
    reader.vector(2)  # cipher suites
    reader.vector(1)  # compression methods
    sni = ""
    alpn: tuple[str, ...] = ()
    if not reader.is_empty:
        extensions = _Reader(reader.vector(2))
        while not extensions.is_empty:
            kind = extensions.number(2)
            content = extensions.vector(2)
            if kind == _SERVER_NAME:
                sni = _server_name(content)
            elif kind == _ALPN:
                alpn = _protocols(content)
    return ClientHello(sni=sni, alpn=alpn)


def _server_name(content: bytes) -> str:
    """RFC 6066 §3: a list of which only host names are defined, one at most."""
    names = _Reader(_Reader(content).vector(2))
    while not names.is_empty:
        kind, name = names.number(1), names.vector(2)
        if kind == _HOST_NAME:
            if not name.isascii():
                raise NotTLS("a server name that is not ASCII")
            return name.decode("ascii")
    return ""


def _protocols(content: bytes) -> tuple[str, ...]:
    """RFC 7301 §3.1."""
    names = _Reader(_Reader(content).vector(2))
    found = []
    while not names.is_empty:
        found.append(names.vector(1).decode("latin-1"))
    return tuple(found)


class _Reader:
    """Reads numbers and length-prefixed vectors (RFC 8446 §3) from the front."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def is_empty(self) -> bool:
        return self._at == len(self._data)

    def take(self, count: int) -> bytes:
        if self._at + count > len(self._data):
            raise NotTLS("a ClientHello whose lengths do not fit")
        self._at += count
        return self._data[self._at - count : self._at]

    def number(self, width: int) -> int:
        return int.from_bytes(self.take(width), "big")

    def vector(self, width: int) -> bytes:
        return self.take(self.number(width))
