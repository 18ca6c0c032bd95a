"""asyncio's streams over a link, for HTTP/1: the connection was begun before it was known what it speaks."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from hbone.backlog import Piece
from hbone.link import Link
from hbone.link_tls import TlsLink
from hbone.wire import Wire

HIGH_WATER = 64 * 1024  # bytes that wait to be taken: then nothing more is written


async def open_streams(link: Link) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, Wire]:
    """Take the connection over, which is read from its next byte on."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    wire = Wire(reader)
    transport: asyncio.Transport
    if isinstance(link, TlsLink):
        transport = LinkTransport(link, wire)
        transport.begin()
    else:
        transport, _ = await loop.connect_accepted_socket(lambda: wire, link.detach())
    return reader, asyncio.StreamWriter(transport, wire, reader, loop), wire


class LinkTransport(asyncio.Transport):
    """What a protocol of asyncio's wants below it."""

    def __init__(self, link: Link, protocol: asyncio.Protocol) -> None:
        super().__init__()
        self._link = link
        self._protocol = protocol
        self._loop = asyncio.get_running_loop()
        self._is_closing = False
        self._is_paused = False  # the protocol has been told not to write

    def begin(self) -> None:
        self._protocol.connection_made(self)
        self.resume_reading()

    def _received(self, data: memoryview) -> None:
        self._protocol.data_received(bytes(data))

    def _drained(self) -> None:
        if self._is_paused:
            self._is_paused = False
            self._protocol.resume_writing()

    def _lost(self, reason: str) -> None:
        if self._link.is_closed or reason:
            self._is_closing = True
            self._loop.call_soon(self._protocol.connection_lost, ConnectionResetError(reason) if reason else None)
            self._link.abort()
        elif not self._protocol.eof_received():
            self.close()

    def write(self, data: Piece) -> None:
        self._link.send(data)
        if self._link.backlog > HIGH_WATER and not self._is_paused:
            self._is_paused = True
            self._protocol.pause_writing()

    def get_write_buffer_size(self) -> int:
        return self._link.backlog

    def can_write_eof(self) -> bool:
        return False  # TLS cannot end one direction

    def is_closing(self) -> bool:
        return self._is_closing

    def close(self) -> None:
        if not self._is_closing:
            self._is_closing = True
            self._link.close()

    def abort(self) -> None:
        self._is_closing = True
        self._link.abort()

    def is_reading(self) -> bool:
        return not self._is_closing

    def pause_reading(self) -> None:
        self._link.stop()

    def resume_reading(self) -> None:
        if not self._is_closing:
            self._link.start(received=self._received, drained=self._drained, lost=self._lost)

    def get_extra_info(self, name: str, default: Any = None) -> socket.socket | Any:
        if name == "socket":
            return self._link.socket
        return self._link if name == "sslcontext" else default
