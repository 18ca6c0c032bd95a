"""hboned's server: a request that names an offered port becomes a tunnel to it, the others are the public's."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hbone import connect, request, sockets
from hbone.acceptor import accept
from hbone.application import Application, Place
from hbone.events import StreamOpened
from hbone.greeting import Greeting
from hbone.inbound_http2 import Http2Inbound
from hbone.link import Link
from hbone.link_tls import TlsLink
from hbone.notify import Notify, Starter
from hbone.offers import Offers, Refusal
from hbone.party import Party
from hbone.poller import of_loop
from hbone.public import Public, Tally
from hbone.session import Session
from hbone.stop import Stop
from hbone.stream import Stream, StreamBroken
from hbone.tunnel import INTERNAL_ERROR, Connection
from hbone.tunnels import Tunnels
from hbone.urls import PREFIX
from hbone.work import Work

if TYPE_CHECKING:
    from hbone.connection_http1 import ClientConnection
    from hbone.dialling import Dialling
    from hbone.worker import Worker

log = logging.getLogger(__name__)

HANDSHAKE_TIMEOUT = 10.0  # seconds


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Where to listen, and what is behind; ``app`` is None when the public is not served."""

    bind: str
    port: int
    loopback: str
    offers: Offers
    tls: ssl.SSLContext | None = None
    app: Place | None = None
    notify: str = ""


class Server:
    """The daemon's work; ``serve`` returns when it is drained."""

    def __init__(self, *, settings: Settings, stop: Stop, worker: Worker | None = None) -> None:
        """``worker``: it is one of several, and their parent is told how it is."""
        self._settings = settings
        self._stop = stop
        self._open: set[Greeting | Session | ClientConnection] = set()
        self._worker = worker
        self._starter: Starter = worker or Notify(settings.notify)
        self._work = Work(idle=self._starter.idle)
        self._tunnels = Tunnels(offers=settings.offers, loopback=settings.loopback)
        self._application = Application(settings.app) if settings.app else None
        self._public = Public(offers=settings.offers, application=self._application, work=self._work)

    async def serve(self, listener: socket.socket) -> None:
        """Serve until the first signal and the end of the last request. Closes the listener."""
        if self._application is None:
            await self._accept(listener)
            return
        async with self._application:
            await self._accept(listener)

    async def _accept(self, listener: socket.socket) -> None:
        address = sockets.name(listener)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._accept_all(listener))
            if self._worker is None:
                say_ready(self._settings, address=address)
            self._starter.ready()
            await self._stop.draining.wait()
            for connection in list(self._open):
                connection.drain()
            self._work.drain()

    async def _accept_all(self, listener: socket.socket) -> None:
        worker = self._worker
        if worker is None:
            await accept(listener, stop=self._stop, serve=self._connection)
        else:
            shares, opened = worker.shares, worker.opened
            await accept(listener, stop=self._stop, serve=self._connection, shares=shares, opened=opened)

    async def _connection(self, connected: socket.socket, peer: str) -> None:
        started = time.monotonic()
        tally = Tally()
        reason = ""
        link = self._link(connected)
        try:
            if isinstance(link, TlsLink):
                await self._shake_hands(link)
            first, is_http2 = await self._first_bytes(link)
            if is_http2:
                reason = await self._http2(link, first=first, peer=peer, tally=tally)
            elif first:
                reason = await self._http1(link, first=first, tally=tally)
            else:
                log.debug("connection without a request", extra={"fields": {"peer": peer}})
        except _Refused as error:
            log.warning("connection refused", extra={"fields": {"peer": peer, "reason": str(error)}})
        except OSError as error:
            log.debug("connection without a request", extra={"fields": {"peer": peer, "reason": str(error)}})
        finally:
            link.abort()
            if tally.count:
                _closed(peer=peer, tally=tally, started=started, reason=reason or "ended at once")

    def _link(self, connected: socket.socket) -> Link:
        poller = of_loop()
        if self._settings.tls is None:
            return Link(connected, poller=poller)
        return TlsLink(connected, poller=poller, context=self._settings.tls, name=None)

    async def _shake_hands(self, link: TlsLink) -> None:
        try:
            async with asyncio.timeout(HANDSHAKE_TIMEOUT):
                await link.shake_hands()
        except TimeoutError as error:
            raise _Refused(f"TLS failed: no handshake within {HANDSHAKE_TIMEOUT:g} s") from error
        except OSError as error:
            reason = getattr(error, "reason", None) or error.strerror or str(error)
            raise _Refused(f"TLS failed: {reason}") from error

    async def _first_bytes(self, link: Link) -> tuple[bytes, bool]:
        if self._stop.draining.is_set():  # its TLS handshake ended after we had closed the door
            return b"", False
        greeting = Greeting(link)
        self._open.add(greeting)
        try:
            return await greeting.first_bytes(seconds=HANDSHAKE_TIMEOUT)
        finally:
            self._open.discard(greeting)

    async def _http2(self, link: Link, *, first: bytes, peer: str, tally: Tally) -> str:
        core = Connection(client=False)
        session = Session(link=link, core=core, hello=HANDSHAKE_TIMEOUT, first=first)
        self._open.add(session)
        try:
            async with asyncio.TaskGroup() as group:
                self._drain_late(session)
                session.on_stream(lambda event: self._opened(session, event, group=group, tally=tally))
                try:
                    await session.run()
                finally:
                    self._open.discard(session)
                    await session.close()
        finally:
            if session.fault:
                log.warning("connection refused", extra={"fields": {"peer": peer, "reason": session.fault}})
        return session.fault or "ended"

    def _drain_late(self, connection: Session | ClientConnection) -> None:
        """The end may have come while it was found out what the client speaks: what it has said already is served."""
        if self._stop.draining.is_set():
            asyncio.get_running_loop().call_soon(connection.drain)

    async def _http1(self, link: Link, *, first: bytes, tally: Tally) -> str:
        from hbone.connection_http1 import ClientConnection  # late: it brings h11, which no tunnel needs
        from hbone.link_streams import open_streams

        reader, writer, wire = await open_streams(link)
        connection = ClientConnection(
            reader=reader,
            writer=writer,
            wire=wire,
            first=first,
            serve=lambda inbound: self._public.serve(inbound, tally=tally),
            work=self._work,
        )
        self._open.add(connection)
        self._drain_late(connection)
        try:
            await connection.run()
        finally:
            self._open.discard(connection)
            tally.count = connection.count
        return connection.reason

    def _opened(self, session: Session, event: StreamOpened, *, group: asyncio.TaskGroup, tally: Tally) -> Party:
        """Whose a new stream is: a tunnel needs no task."""
        asked = connect.as_post(event)
        port = self._tunnels.find(method=asked.method, path=asked.path)
        if isinstance(port, int) and not isinstance(request.http2(asked.fields, is_empty=False), Refusal):

            def refuse(dialling: Dialling, refusal: Refusal) -> None:
                stream = self._stream_of(session, asked)
                session.streams[event.stream] = stream
                stream.received([memoryview(dialling.said)])
                if dialling.is_ended:
                    stream.ended()
                group.create_task(self._stream(session, stream, tally=tally, refusal=refusal))

            return self._tunnels.open(session=session, flow=event.flow, port=port, path=asked.path, refuse=refuse)
        stream = self._stream_of(session, event)
        group.create_task(self._stream(session, stream, tally=tally))
        return stream

    def _stream_of(self, session: Session, event: StreamOpened) -> Stream:
        return Stream(session=session, number=event.stream, method=event.method, path=event.path, fields=event.fields)

    async def _stream(self, session: Session, stream: Stream, *, tally: Tally, refusal: Refusal | None = None) -> None:
        try:
            if refusal is not None:
                await self._tunnels.refuse(stream, refusal)
            else:
                await self._serve(stream, tally=tally)
        except StreamBroken as error:
            fields = {"target": self._tunnels.name(stream.path), "reason": str(error)}
            log.info("tunnel refused", extra={"fields": fields})
        except Exception as error:  # noqa: BLE001 - a front has the requests of many users in one connection
            fields = {"target": self._tunnels.name(stream.path), "reason": repr(error)}
            log.error("a bug ended a request", extra={"fields": fields})
            stream.reset(INTERNAL_ERROR)
        finally:
            session.served += 1
            session.forget(stream.number)

    async def _serve(self, stream: Stream, *, tally: Tally) -> None:
        if stream.is_given_up:  # in the same breath: the application need not hear of it
            return
        found = request.http2(stream.fields, is_empty=stream.is_empty and not stream.trailers)
        is_tunnel = stream.path.startswith(PREFIX) or not self._public.is_served
        if isinstance(found, Refusal):
            inbound = Http2Inbound(stream=stream, request=request.UNREADABLE)
            await self._public.refuse(inbound, found, tally=tally)
        elif is_tunnel:
            port = self._tunnels.find(method=stream.method, path=stream.path)
            assert isinstance(port, Refusal)  # noqa: S101 - a tunnel has no task
            await self._tunnels.refuse(stream, port)
        else:
            await self._public.serve(Http2Inbound(stream=stream, request=found), tally=tally)


def say_ready(settings: Settings, *, address: str) -> None:
    """One line, whoever accepts."""
    log.info("ready", extra={"fields": {"address": address, "count": len(settings.offers.ports)}})


class _Refused(Exception):
    """A connection that does not even begin."""


def _closed(*, peer: str, tally: Tally, started: float, reason: str) -> None:
    fields = {
        "peer": peer,
        "count": tally.count,
        "sent": tally.sent,
        "received": tally.received,
        "duration_ms": round((time.monotonic() - started) * 1000),
        "reason": reason,
    }
    log.info("connection closed", extra={"fields": fields})
