"""A request to the application by HTTP/1.1, and the connections that wait for the next one."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable

import h11

from hbone import answer as answers
from hbone import fields as field_rules
from hbone import sockets
from hbone.events import Fields
from hbone.message import Answer, Request
from hbone.outbound import AppBroken, AppStopped, dial

READ = 64 * 1024
MAX_HEAD = 64 * 1024  # bytes of an answer's head
IDLE = 1.0  # seconds that a connection waits for its next request: less than any server waits that means to keep it
MAX_IDLE = 100  # connections that wait


class Http1Outbound:
    """The request on its connection."""

    def __init__(self, *, connection: Http1Connection, request: Request, released: Callable[[Http1Outbound], None]):
        self.trailers: Fields = ()
        self.is_reused = connection.is_used
        self.has_sent_body = False
        self.has_answered = False
        self.connection = connection
        self._request = request
        self._released = released
        self._h11 = connection.h11
        self._is_chunked = request.has_body and (request.length is None or request.has_trailers)
        self._is_ended = False

    async def begin(self, body: bytes | None = None, trailers: Fields = ()) -> None:
        request = self._request
        fields = [(b"host", request.authority), *request.fields]
        options = []
        if request.takes_trailers:
            options.append(b"te")
            fields.append((b"te", b"trailers"))
        if request.is_websocket:
            options.append(b"upgrade")
            fields.append((b"upgrade", b"websocket"))
        if options:
            fields.append((b"connection", b", ".join(options)))
        if self._is_chunked:
            fields.append((b"transfer-encoding", b"chunked"))
        elif request.length is not None or request.method in (b"POST", b"PUT", b"PATCH"):
            fields.append((b"content-length", b"%d" % (request.length or 0)))
        out = self._h11.send(h11.Request(method=request.method, target=request.path, headers=fields))
        if body is not None and request.has_body:
            self.has_sent_body = True
            out += self._h11.send(h11.Data(data=body)) + self._end(trailers)
        elif not request.has_body:
            out += self._h11.send(h11.EndOfMessage())
        await self._write(out)

    async def send(self, data: bytes) -> None:
        self.has_sent_body = True
        await self._write(self._h11.send(h11.Data(data=data)))

    async def finish(self, trailers: Fields) -> None:
        await self._write(self._end(trailers))

    def _end(self, trailers: Fields) -> bytes:
        kept = list(field_rules.trailers(trailers)) if self._is_chunked else []
        return self._h11.send(h11.EndOfMessage(headers=kept)) or b""

    async def _write(self, data: bytes) -> None:
        try:
            await self.connection.write(data)
        except OSError as error:
            # It may have answered and closed: what it said is still to be read.
            raise AppStopped(f"it takes no more: {error.strerror}") from error

    async def head(self) -> Answer:
        while True:
            event = self._next()
            if isinstance(event, h11.InformationalResponse | h11.Response):
                return self._judged(event)
            if event is not h11.NEED_DATA:
                raise AppBroken("it closed the connection without an answer")
            await self._receive()

    def _judged(self, event: h11.InformationalResponse | h11.Response) -> Answer:
        try:
            found = answers.http1(event.status_code, event.headers.raw_items(), reason=bytes(event.reason))
        except answers.MalformedAnswer as error:
            raise AppBroken(str(error), is_malformed=True) from error
        if found.status == 101 and not self._request.is_websocket:
            raise AppBroken("it switches protocols unasked", is_malformed=True)
        return found

    def ready(self) -> tuple[bytes, bool]:
        data = []
        while not self._is_ended:
            event = self._next()
            if isinstance(event, h11.Data):
                data.append(bytes(event.data))
            elif isinstance(event, h11.EndOfMessage):
                self.trailers = field_rules.trailers(tuple(event.headers.raw_items()))
                self._is_ended = True
            else:
                break
        return data[0] if len(data) == 1 else b"".join(data), self._is_ended

    async def read(self) -> bytes:
        while True:
            data, is_ended = self.ready()
            if data or is_ended:
                return data
            await self._receive()

    def _next(self) -> object:
        try:
            return self._h11.next_event()
        except h11.RemoteProtocolError as error:
            if self.connection.is_ended:
                raise AppBroken("it closed the connection within an answer") from error
            raise AppBroken("it does not speak HTTP/1.1", is_malformed=True) from error

    async def _receive(self) -> None:
        try:
            data = await self.connection.read()
        except OSError as error:
            raise AppBroken(f"it broke the connection: {error.strerror}") from error
        if not data and not self.has_answered:
            raise AppBroken("it closed the connection without an answer")
        self.has_answered = True
        self._h11.receive_data(data)

    def acknowledge(self, count: int) -> None:
        """Nothing is told to the application: it is held back by what is not read."""

    @property
    def rest(self) -> bytes:
        """What has been read after an answer that switches protocols."""
        return self._h11.trailing_data[0]

    def release(self) -> None:
        self._released(self)


class Http1Connection:
    """A connection to the application."""

    def __init__(self, connected: socket.socket) -> None:
        sockets.tune(connected)
        self.socket = connected
        self.h11 = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD)
        self.is_used = False
        self._is_writing = False
        self.is_ended = False  # the application has ended it
        self.since = 0.0  # when it began to wait

    async def read(self) -> bytes:
        data = await asyncio.get_running_loop().sock_recv(self.socket, READ)
        self.is_ended = not data
        return data

    async def write(self, data: bytes) -> None:
        self._is_writing = True  # and it stays so, when the rest of a request is given up within a write
        await asyncio.get_running_loop().sock_sendall(self.socket, data)
        self._is_writing = False

    def write_eof(self) -> None:
        with contextlib.suppress(OSError):  # gone: then it needs no word from us
            self.socket.shutdown(socket.SHUT_WR)

    def renew(self) -> bool:
        """Make it ready for another request; false when it cannot carry one."""
        are_done = self.h11.our_state is h11.DONE and self.h11.their_state is h11.DONE
        if not are_done or self._is_writing or self.h11.trailing_data[0]:
            return False
        self.h11.start_next_cycle()
        self.is_used = True
        return True

    @property
    def is_quiet(self) -> bool:
        """Whether the application has neither closed it nor said anything unasked."""
        try:
            self.socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def close(self) -> None:
        self.socket.close()


class Http1Pool:
    """The connections to one port."""

    def __init__(self, *, address: str, port: int) -> None:
        self._address = address
        self._port = port
        self._idle: list[Http1Connection] = []
        self._reaper: asyncio.TimerHandle | None = None

    async def open(self, request: Request, *, is_fresh: bool) -> Http1Outbound:
        """A connection that waits, or a new one. Raises AppBroken.

        What cannot be repeated gets a new one always: an application may close a connection at any moment, and nobody
        could tell whether it had read the request before.
        """
        if not is_fresh and request.can_repeat:
            while self._idle:
                connection = self._idle.pop()
                if connection.is_quiet:
                    return self._outbound(connection, request)
                connection.close()
        return self._outbound(Http1Connection(await dial(self._address, self._port)), request)

    def _outbound(self, connection: Http1Connection, request: Request) -> Http1Outbound:
        return Http1Outbound(connection=connection, request=request, released=self._release)

    def _release(self, outbound: Http1Outbound) -> None:
        connection = outbound.connection
        if len(self._idle) >= MAX_IDLE or not connection.renew():
            connection.close()
            return
        loop = asyncio.get_running_loop()
        connection.since = loop.time()
        self._idle.append(connection)
        if self._reaper is None:
            self._reaper = loop.call_later(IDLE, self._reap)

    def _reap(self) -> None:
        loop = asyncio.get_running_loop()
        before = loop.time() - IDLE
        waiting = [connection for connection in self._idle if connection.since > before]
        for connection in self._idle:
            if connection.since <= before:
                connection.close()
        self._idle = waiting
        self._reaper = loop.call_at(waiting[0].since + IDLE, self._reap) if waiting else None

    def close(self) -> None:
        """Close what waits."""
        if self._reaper is not None:
            self._reaper.cancel()
        for connection in self._idle:
            connection.close()
        self._idle.clear()
