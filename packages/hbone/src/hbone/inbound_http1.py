"""A request in an HTTP/1 connection: h11 keeps its framing, shown the shape only of a head that request.py has read."""

from __future__ import annotations

import contextlib
import http
import socket
import struct
from asyncio import StreamReader, StreamWriter
from collections.abc import Callable

import h11

from hbone import answer as answers
from hbone.events import Fields
from hbone.inbound import MAX_READY, Gone, Malformed
from hbone.message import Answer, Request
from hbone.offers import Refusal
from hbone.request import MAX_HEAD
from hbone.wire import Call, Wire

READ = 64 * 1024
# Seconds for the rest of an answer when the client has ended its side: a script's half-close gets its answer, and a
# client that is gone, which looks the same, does not keep the application busy for long.
HALF_CLOSED = 10.0
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: closing sends a reset


class Http1Inbound:
    """The request that the connection serves now."""

    def __init__(
        self,
        *,
        request: Request,
        reader: StreamReader,
        writer: StreamWriter,
        wire: Wire,
        rest: bytes,
        is_last: Callable[[], bool],
    ) -> None:
        """``rest`` is what has been read after the head; ``is_last`` tells whether the connection ends after it."""
        self.request = request
        self.trailers: Fields = ()
        self.arrived = 0  # bytes of the connection, since the head
        self._reader = reader
        self._writer = writer
        self._wire = wire
        self._is_last = is_last
        self._is_chunked = False
        self._lost: Call = None
        self._early = b""  # of the body, looked at and not yet handed on
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)
        self._h11.receive_data(_shape(request) + rest)
        self._h11.next_event()
        self.is_whole = not request.has_body  # the request has been read to its end
        if self.is_whole:
            self._h11.next_event()

    @property
    def is_over(self) -> bool:
        """Whether request and answer are whole, and another request may follow."""
        return self._h11.their_state is h11.DONE and self._h11.our_state is h11.DONE and not self._is_last()

    @property
    def rest(self) -> bytes:
        """What has been read beyond the request."""
        return self._h11.trailing_data[0]

    async def read(self) -> bytes:
        if self._early:
            data, self._early = self._early, b""
            return data
        while (piece := self._next()) is None:
            await self._receive()
        return piece

    def ready(self) -> bytes | None:
        while (piece := self._next()) is not None:
            if not piece:
                data, self._early = self._early, b""
                return data
            self._early += piece
            if len(self._early) > MAX_READY:
                return None
        return None

    def _next(self) -> bytes | None:
        """The next bytes of what has been read, ``b""`` at the body's end, None when more must be read."""
        try:
            event = self._h11.next_event()
        except h11.RemoteProtocolError as error:
            raise Malformed("the body is malformed") from error
        if isinstance(event, h11.Data):
            return bytes(event.data)
        if isinstance(event, h11.EndOfMessage):
            self.trailers = tuple(event.headers.raw_items())
            self.is_whole = True
        return None if event is h11.NEED_DATA else b""

    async def _receive(self) -> None:
        try:
            data = await self._reader.read(READ)
        except OSError as error:
            raise Gone(f"the connection was lost: {error.strerror}") from error
        if not data:
            raise Gone("the connection ended within a body")
        self.arrived += len(data)
        self._h11.receive_data(data)

    def acknowledge(self, count: int) -> None:
        """Nothing is told to the client: it is held back by what is not read."""

    def when_gone(self, call: Callable[[float], None] | None) -> None:
        if call is None:
            self._wire.watch(lost=None, ended=None)
            return
        self._lost = lambda: call(0.0)
        self._wire.watch(lost=self._lost, ended=lambda: call(HALF_CLOSED))

    async def inform(self, answer: Answer) -> None:
        if self.request.version == "1.1":
            headers = _list(answer.fields)
            self._write(h11.InformationalResponse(status_code=answer.status, headers=headers, reason=answer.reason))
            await self._drain()

    async def answer(self, answer: Answer, data: bytes, *, ends: bool) -> None:
        self._is_chunked = answers.is_chunked(self.request, answer)
        fields = answers.without_length(answer.fields) if self._is_chunked else answer.fields
        # An error that comes before the body is whole is the end: the client need not go on.
        if self._is_last() or (answer.status >= 400 and not self.is_whole):
            fields = (*fields, (b"connection", b"close"))
        out = self._h11.send(h11.Response(status_code=answer.status, headers=_list(fields), reason=answer.reason))
        if data:
            out += self._h11.send(h11.Data(data=data))
        if ends:
            out += self._h11.send(h11.EndOfMessage())
        self._writer.write(out)
        await self._drain()

    async def write(self, data: bytes) -> None:
        self._write(h11.Data(data=data))
        await self._drain()

    async def end(self, trailers: Fields) -> None:
        if self._h11.our_state is h11.SEND_BODY:
            self._write(h11.EndOfMessage(headers=_list(trailers) if self._is_chunked else []))
        await self._drain()

    def abort(self) -> None:
        self._wire.watch(lost=None, ended=None)
        with contextlib.suppress(OSError):
            # A body that ends with the connection would look whole else.
            self._writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self._writer.transport.abort()

    async def refuse(self, refusal: Refusal) -> None:
        text = refusal.text.encode()
        headers = [(name.encode(), value.encode()) for name, value in refusal.headers]
        headers += [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"%d" % len(text))]
        phrase = http.HTTPStatus(refusal.status).phrase.encode()
        answer = Answer(status=refusal.status, fields=tuple(headers), length=len(text), reason=phrase)
        body = text if answer.has_body(self.request.method) else b""
        await self.answer(answer, body, ends=True)

    async def switch(self, answer: Answer, protocol: bytes) -> tuple[StreamReader, StreamWriter, bytes]:
        """Hand on that the application has switched protocols; what follows is not HTTP. Returns what came early."""
        self._wire.watch(lost=self._lost, ended=None)  # each side ends by itself from here on
        headers = [*answer.fields, (b"connection", b"upgrade"), (b"upgrade", protocol)]
        self._write(h11.InformationalResponse(status_code=answer.status, headers=headers, reason=answer.reason))
        await self._drain()
        return self._reader, self._writer, self.rest

    async def finish(self) -> None:
        """The connection sees to the rest: it ends then."""

    def _write(self, event: h11.Event) -> None:
        self._writer.write(self._h11.send(event) or b"")

    async def _drain(self) -> None:
        try:
            await self._writer.drain()
        except OSError as error:
            raise Gone(f"the connection was lost: {error.strerror}") from error


def _shape(request: Request) -> bytes:
    """A head that frames the request as the real one does, and says nothing else."""
    lines = [b"%s / HTTP/%s" % (request.method, request.version.encode()), b"host: h"]
    if request.length is not None:
        lines.append(b"content-length: %d" % request.length)
    elif request.has_body:
        lines.append(b"transfer-encoding: chunked")
    if request.is_websocket:
        lines += [b"connection: upgrade", b"upgrade: websocket"]
    return b"\r\n".join([*lines, b"", b""])


def _list(fields: Fields) -> list[tuple[bytes, bytes]]:
    return list(fields)
