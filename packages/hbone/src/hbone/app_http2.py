"""A request to the application by HTTP/2 without TLS, and the connections that are kept for that."""

from __future__ import annotations

import asyncio

from hbone import answer as answers
from hbone import fields as field_rules
from hbone.events import Fields
from hbone.inbound_http2 import are_trailers
from hbone.link import Link
from hbone.message import Answer, Request
from hbone.outbound import AppBroken, AppStopped, dial
from hbone.poller import of_loop
from hbone.session import Session
from hbone.stream import Stream, StreamBroken, StreamStopped
from hbone.tunnel import CANCEL, Connection

HELLO = 5.0  # seconds until the application has begun HTTP/2
IDLE = 1.0  # seconds that a connection without requests is kept


class Http2Outbound:
    """The request in its stream."""

    def __init__(self, *, pool: Http2Pool, session: Session, request: Request) -> None:
        self.trailers: Fields = ()
        self.is_reused = bool(session.served)
        self.has_sent_body = False
        self.has_answered = False
        self._pool = pool
        self._session = session
        self._request = request
        self._stream: Stream | None = None

    @property
    def stream(self) -> Stream:
        assert self._stream is not None  # noqa: S101 - begin() comes first
        return self._stream

    async def begin(self, body: bytes | None = None, trailers: Fields = ()) -> None:
        self._stream = self._session.request(_fields(self._request), ends=not self._request.has_body)
        if body is not None and self._request.has_body:
            self.has_sent_body = True
            await self._stream.turn()
            await self.send(body[self._stream.offer(body) :])
            await self.finish(trailers)

    async def send(self, data: bytes) -> None:
        self.has_sent_body = True
        try:
            await self.stream.send(data)
        except (StreamBroken, StreamStopped) as error:
            raise AppStopped(str(error)) from error

    async def finish(self, trailers: Fields) -> None:
        self.stream.end(field_rules.lowered(field_rules.trailers(trailers)))

    async def head(self) -> Answer:
        try:
            status, fields = await self.stream.head()
            self.has_answered = True
            found = answers.http2(status, fields, ends=self.stream.is_empty)
        except StreamBroken as error:
            raise AppBroken(str(error), is_safe=error.is_safe) from error
        except answers.MalformedAnswer as error:
            raise AppBroken(str(error), is_malformed=True) from error
        if found.status == 101:
            raise AppBroken("it switches protocols", is_malformed=True)
        return found

    def ready(self) -> tuple[bytes, bool]:
        data = self.stream.take()
        return data, self._is_ended()

    async def read(self) -> bytes:
        try:
            data = await self.stream.receive()
        except StreamBroken as error:
            raise AppBroken(str(error)) from error
        if not data:
            self._is_ended()
        return data

    def _is_ended(self) -> bool:
        if not self.stream.is_empty:
            return False
        if not are_trailers(self.stream.trailers):
            raise AppBroken("a trailer is malformed")
        self.trailers = field_rules.trailers(self.stream.trailers)
        return True

    def acknowledge(self, count: int) -> None:
        self.stream.acknowledge(count)

    def release(self) -> None:
        if self._stream is not None:
            self._stream.reset(CANCEL)
            self._stream.release()
        self._pool.released(self._session)


def _fields(request: Request) -> Fields:
    pseudo = [(b":method", request.method), (b":scheme", request.scheme), (b":path", request.path)]
    if request.authority:
        pseudo.append((b":authority", request.authority))
    rest = list(field_rules.lowered(request.fields))
    if request.takes_trailers:
        rest.append((b"te", b"trailers"))
    if request.length is not None:
        rest.append((b"content-length", b"%d" % request.length))
    return (*pseudo, *rest)


class Http2Pool:
    """The connections to one port; they live in the task group they are given."""

    def __init__(self, *, address: str, port: int, group: asyncio.TaskGroup) -> None:
        self._address = address
        self._port = port
        self._group = group
        self._sessions: list[Session] = []
        self._choosing = asyncio.Lock()  # a hundred requests at once need one connection, not a hundred
        self._timers: dict[Session, asyncio.TimerHandle] = {}

    async def open(self, request: Request, *, is_fresh: bool) -> Http2Outbound:
        """A stream of a connection that has room, or of a new one. Raises AppBroken."""
        async with self._choosing:
            session = None
            while session is None or not session.has_room:
                session = None if is_fresh else next((one for one in self._sessions if one.has_room), None)
                if session is None:
                    session = await self._connect()
                await session.turns.room()  # heads wait, too, for an application that reads slowly
        if timer := self._timers.pop(session, None):
            timer.cancel()
        return Http2Outbound(pool=self, session=session, request=request)

    def released(self, session: Session) -> None:
        """A request of this connection is over."""
        session.served += 1
        if not session.streams and session not in self._timers and not session.is_over:
            self._timers[session] = asyncio.get_running_loop().call_later(IDLE, self._retire, session)

    def _retire(self, session: Session) -> None:
        self._timers.pop(session, None)
        if not session.streams:
            session.retire()
            session.drain()

    async def _connect(self) -> Session:
        connected = await dial(self._address, self._port)
        session = Session(link=Link(connected, poller=of_loop()), core=Connection(client=True), hello=HELLO)
        self._sessions.append(session)
        self._group.create_task(self._keep(session))
        return session

    async def _keep(self, session: Session) -> None:
        try:
            await session.run()
        finally:
            self._sessions.remove(session)
            if timer := self._timers.pop(session, None):
                timer.cancel()
            await session.close()

    async def close(self) -> None:
        """Close all connections, with what is still under way in them."""
        async with asyncio.TaskGroup() as group:
            for session in list(self._sessions):
                group.create_task(session.close())
