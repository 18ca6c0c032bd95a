"""A connection that has switched to WebSocket: bytes both ways between client and application, each end by itself."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from hbone.inbound import Gone, Inbound

if TYPE_CHECKING:
    from hbone.app_http1 import Http1Connection
    from hbone.message import Answer
    from hbone.outbound import Outbound

READ = 64 * 1024
PROTOCOL = b"websocket"


async def switch(inbound: Inbound, outbound: Outbound, answer: Answer) -> tuple[int, int]:
    """Hand on the answer 101, then relay until both sides have ended. Returns bytes sent and received.

    Raises:
        Gone: one of the two broke the connection, and so is the other's.
    """
    from hbone.app_http1 import Http1Outbound
    from hbone.inbound_http1 import Http1Inbound

    if not isinstance(inbound, Http1Inbound) or not isinstance(outbound, Http1Outbound):
        raise TypeError("only HTTP/1.1 on both sides switches protocols")
    reader, writer, first = await inbound.switch(answer, PROTOCOL)
    pump = _Pump(reader=reader, writer=writer, connection=outbound.connection)
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(pump.to_client(outbound.rest))
            group.create_task(pump.to_app(first))
    except* OSError as errors:
        raise Gone(f"the connection broke: {errors.exceptions[0]}") from errors
    return pump.sent, pump.received


class _Pump:
    def __init__(self, *, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connection: Http1Connection):
        self.sent = 0
        self.received = 0
        self._reader = reader
        self._writer = writer
        self._connection = connection

    async def to_app(self, data: bytes) -> None:
        while data := data or await self._reader.read(READ):
            await self._connection.write(data)
            self.received += len(data)
            data = b""
        self._connection.write_eof()

    async def to_client(self, data: bytes) -> None:
        while data := data or await self._connection.read():
            self._writer.write(data)
            await self._writer.drain()
            self.sent += len(data)
            data = b""
        if self._writer.can_write_eof():
            with contextlib.suppress(OSError):
                self._writer.write_eof()
        else:  # TLS has no half of an end
            self._writer.close()
