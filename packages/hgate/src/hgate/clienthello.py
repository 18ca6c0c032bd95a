"""Reads the server name out of a TLS ClientHello that comes in pieces: decides nothing else, and keeps no bytes.

RFC 8446 §4.1.2 and §5.1: a handshake message may be spread over records, and a record over TCP segments. Today's
hellos carry a post-quantum key share and are larger than a segment, so both happen.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

MAX_SIZE = 16 * 1024  # bytes of records; browsers and Envoys stay below 2 KiB
_HANDSHAKE_RECORD = 22
_CLIENT_HELLO = 1
_MAX_RECORD = 16384  # RFC 8446 §5.1
_SERVER_NAME = 0
_ALPN = 16
_HOST_NAME = 0
_EXTENSION = struct.Struct(">HH")
_MISFIT = "a ClientHello whose lengths do not fit"


class HelloError(Exception):
    """What came is no ClientHello, or one that we do not take."""


class NotTLS(HelloError):
    """Another protocol, or a broken hello."""


class TooBig(HelloError):
    """No end within MAX_SIZE."""


@dataclass(frozen=True, kw_only=True, slots=True)
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


def in_one_piece(data: bytes) -> ClientHello | None:
    """Most hellos are one record, and come whole; ``None`` for any other, and what is none. Raises NotTLS."""
    if len(data) < 9 or data[0] != _HANDSHAKE_RECORD or data[1] != 3 or data[5] != _CLIENT_HELLO:
        return None
    record = data[3] << 8 | data[4]
    message = data[6] << 16 | data[7] << 8 | data[8]
    if not 4 + message <= record <= _MAX_RECORD or len(data) < 5 + record:
        return None
    return parse(data[9 : 9 + message])


def parse(body: bytes) -> ClientHello:
    """Read a whole ClientHello's body.

    Raises:
        NotTLS: it is malformed.
    """
    try:
        return _parse(body)
    except (IndexError, struct.error):  # read beyond its end
        raise NotTLS(_MISFIT) from None


def _parse(body: bytes) -> ClientHello:
    at = 2 + 32  # legacy version, random
    at += 1 + body[at]  # session id
    at += 2 + (body[at] << 8 | body[at + 1])  # cipher suites
    at += 1 + body[at]  # compression methods
    sni = ""
    alpn: tuple[str, ...] = ()
    if at == len(body):
        return ClientHello(sni=sni, alpn=alpn)
    end = at + 2 + (body[at] << 8 | body[at + 1])
    at += 2
    if end > len(body):
        raise NotTLS(_MISFIT)
    while at < end:
        kind, size = _EXTENSION.unpack_from(body, at)
        at += 4 + size
        if at > end:
            raise NotTLS(_MISFIT)
        if kind == _SERVER_NAME:
            sni = _server_name(body[at - size : at])
        elif kind == _ALPN:
            alpn = _protocols(body[at - size : at])
    return ClientHello(sni=sni, alpn=alpn)


def _server_name(content: bytes) -> str:
    """RFC 6066 §3: a list of which only host names are defined, one at most."""
    end = 2 + (content[0] << 8 | content[1])
    if end > len(content):
        raise NotTLS(_MISFIT)
    at = 2
    while at < end:
        kind, size = content[at], content[at + 1] << 8 | content[at + 2]
        at += 3 + size
        if at > end:
            raise NotTLS(_MISFIT)
        if kind == _HOST_NAME:
            name = content[at - size : at]
            if not name.isascii():
                raise NotTLS("a server name that is not ASCII")
            return name.decode("ascii")
    return ""


def _protocols(content: bytes) -> tuple[str, ...]:
    """RFC 7301 §3.1."""
    end = 2 + (content[0] << 8 | content[1])
    if end > len(content):
        raise NotTLS(_MISFIT)
    at = 2
    found = []
    while at < end:
        size = content[at]
        at += 1 + size
        if at > end:
            raise NotTLS(_MISFIT)
        found.append(content[at - size : at].decode("latin-1"))
    return tuple(found)
