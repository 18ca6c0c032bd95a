"""An HTTP/1 connection of a client: one request after the other, each head within its bounds of time and size."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Awaitable, Callable

from hbone import request as requests
from hbone.inbound import Gone
from hbone.inbound_http1 import READ, Http1Inbound
from hbone.message import Request
from hbone.offers import Refusal
from hbone.wire import Wire
from hbone.work import Work

IDLE = 620.0  # seconds between two requests: longer than fronts keep a connection (600), so that they close it first
HEAD_TIMEOUT = 10.0  # seconds for a request's head
LAST_HEAD = 1.0  # the same for the rest of one that has begun when we drain: it is on its way, or never comes
MAX_LINE = requests.MAX_TARGET + 512  # bytes of the first line
LINGER, LAST_LINGER = 5.0, 1.0  # seconds that the rest of a request is read and dropped after the last answer
GOODBYE = 10.0  # seconds for the last bytes to leave

# Where a head ends; lines that end in a bare LF are found too, and refused when the head is read.
_END = re.compile(rb"\r?\n\r?\n")

Serve = Callable[[Http1Inbound], Awaitable[None]]


class ClientConnection:
    """The connection: its owner runs ``run()``, which closes it."""

    def __init__(
        self,
        *,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        wire: Wire,
        first: bytes,
        serve: Serve,
        work: Work,
    ) -> None:
        """``first`` is what has been read already; ``serve`` is given each request that is in order.

        ``work`` counts a request from its first byte: one that we have begun to read is under way.
        """
        self.count = 0
        self.reason = "ended"
        self._reader = reader
        self._writer = writer
        self._wire = wire
        self._serve = serve
        self._work = work
        self._buffer = bytearray(first)
        self._is_draining = False
        self._is_whole = True  # nothing of the last request is still to come
        self._idle: asyncio.Timeout | None = None  # while we wait for a request
        self._rest: asyncio.Timeout | None = None  # while we wait for the rest of its head

    def drain(self) -> None:
        """Take no further request: one that is under way is answered, and told that it is the last."""
        self._is_draining = True
        now = asyncio.get_running_loop().time()
        if self._idle is not None and not self._idle.expired():
            self._idle.reschedule(now)
        if self._rest is not None and not self._rest.expired():
            self._rest.reschedule(min(now + LAST_HEAD, self._rest.when() or now))

    async def run(self) -> None:
        try:
            while await self._begins():
                with self._work.one():
                    if not await self._next():
                        break
            await self._close()
        except (OSError, Gone) as error:
            self.reason = str(error) or "the connection was lost"
        finally:
            self._wire.watch(lost=None, ended=None)
            self._writer.transport.abort()

    async def _begins(self) -> bool:
        """Wait for a request's first byte."""
        try:
            async with asyncio.timeout(IDLE if self.count else HEAD_TIMEOUT) as self._idle:
                while not self._skip_empty_lines():
                    if self._is_draining or not (data := await self._reader.read(READ)):
                        return False
                    self._buffer += data
            return True
        except TimeoutError:
            self.reason = "drained" if self._is_draining else "idle"
            return False
        finally:
            self._idle = None

    def _skip_empty_lines(self) -> bool:
        """Whether anything follows them (RFC 9112 §2.2)."""
        del self._buffer[: len(self._buffer) - len(self._buffer.lstrip(b"\r\n"))]
        return bool(self._buffer)

    async def _next(self) -> bool:
        """Serve one request; false when the connection ends after it."""
        head = await self._head()
        self.count += 1
        request = requests.http1(head) if isinstance(head, bytes) else head
        self._is_whole = False
        if isinstance(request, Refusal):
            await self._refuse(request)
            return False
        inbound = self._inbound(request)
        await self._serve(inbound)
        self._is_whole = inbound.is_whole and not inbound.rest
        if not inbound.is_over:
            return False
        self._buffer = bytearray(inbound.rest)
        return True

    async def _head(self) -> bytes | Refusal:
        """The lines of a head, without the empty one; they are taken out of the buffer."""
        start = 0
        try:
            async with asyncio.timeout(LAST_HEAD if self._is_draining else HEAD_TIMEOUT) as self._rest:
                while (end := _END.search(self._buffer, start)) is None:
                    if refusal := self._too_long():
                        return refusal
                    start = max(0, len(self._buffer) - 3)
                    data = await self._reader.read(READ)
                    if not data:
                        raise Gone("the connection ended within a head")
                    self._buffer += data
        except TimeoutError:
            seconds = LAST_HEAD if self._is_draining else HEAD_TIMEOUT
            return Refusal(status=408, text=f"krun: no whole head within {seconds:g} s\n")
        finally:
            self._rest = None
        head = bytes(self._buffer[: end.start()])
        if end[0] != b"\r\n\r\n":
            head += b"\n"  # which no line may hold
        del self._buffer[: end.end()]
        if len(head) > requests.MAX_HEAD + MAX_LINE or (head.find(b"\n") + 1 or len(head)) > MAX_LINE:
            return self._too_long_head(head)
        return head

    def _too_long(self) -> Refusal | None:
        size = len(self._buffer)
        line = self._buffer.find(b"\n") + 1 or size
        return self._too_long_head(self._buffer) if line > MAX_LINE or size > requests.MAX_HEAD + MAX_LINE else None

    def _too_long_head(self, head: bytes | bytearray) -> Refusal:
        if (head.find(b"\n") + 1 or len(head)) > MAX_LINE:
            return Refusal(status=414, text=f"krun: the path is longer than {requests.MAX_TARGET} bytes\n")
        return Refusal(status=431, text=f"krun: the headers are longer than {requests.MAX_HEAD} bytes\n")

    async def _refuse(self, refusal: Refusal) -> None:
        """Answer what is no request that could be read further."""
        await self._inbound(requests.UNREADABLE).refuse(refusal)

    def _inbound(self, request: Request) -> Http1Inbound:
        rest = bytes(self._buffer)
        self._buffer.clear()
        return Http1Inbound(
            request=request,
            reader=self._reader,
            writer=self._writer,
            wire=self._wire,
            rest=rest,
            is_last=lambda: request.is_last or self._is_draining,
        )

    async def _close(self) -> None:
        """Let the last bytes leave; a peer that still sends must not make the kernel answer by a reset."""
        if self._writer.transport.is_closing():
            return
        if not self._is_whole:
            if self._writer.can_write_eof():
                self._writer.write_eof()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LAST_LINGER if self._is_draining else LINGER):
                    while await self._reader.read(READ):
                        pass
        self._writer.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GOODBYE):
                await self._writer.wait_closed()
