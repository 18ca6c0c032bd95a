"""hboned's server: a request that names an offered port becomes a tunnel to it, the others are the public's."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hbone import request, sockets
from hbone.acceptor import accept
from hbone.application import Application, Place
from hbone.greeting import Greeting
from hbone.inbound_http2 import Http2Inbound
from hbone.notify import Notify
from hbone.offers import Offers, Refusal
from hbone.public import Public, Tally
from hbone.session import Session
from hbone.stop import Stop
from hbone.stream import Stream, StreamBroken
from hbone.tunnel import INTERNAL_ERROR, Connection
from hbone.tunnels import Tunnels
from hbone.urls import PREFIX
from hbone.wire import Wire
from hbone.work import Work

if TYPE_CHECKING:
    from hbone.connection_http1 import ClientConnection

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

    def __init__(self, *, settings: Settings, stop: Stop) -> None:
        self._settings = settings
        self._stop = stop
        self._open: set[Greeting | Session | ClientConnection] = set()
        self._notify = Notify(settings.notify)
        self._work = Work(idle=self._notify.idle)
        self._tunnels = Tunnels(offers=settings.offers, loopback=settings.loopback)
        self._application = Application(settings.app) if settings.app else None
        self._public = Public(offers=settings.offers, application=self._application, work=self._work)

    async def serve(self) -> None:
        """Listen, and serve until the first signal and the end of the last request. Raises Misconfigured."""
        listener = sockets.listen(self._settings.bind, self._settings.port)
        if self._application is None:
            await self._accept(listener)
            return
        async with self._application:
            await self._accept(listener)

    async def _accept(self, listener: socket.socket) -> None:
        address = sockets.name(listener)
        async with asyncio.TaskGroup() as group:
            group.create_task(accept(listener, stop=self._stop, serve=self._connection))
            log.info("ready", extra={"fields": {"address": address, "count": len(self._settings.offers.ports)}})
            self._notify.ready()
            await self._stop.draining.wait()
            for connection in list(self._open):
                connection.drain()
            self._work.drain()

    async def _connection(self, connected: socket.socket, peer: str) -> None:
        try:
            reader, writer, wire = await self._greet(connected)
        except OSError as error:  # of TLS, or the connection's
            reason = getattr(error, "reason", None) or error.strerror or str(error)
            log.warning("connection refused", extra={"fields": {"peer": peer, "reason": f"TLS failed: {reason}"}})
            return
        started = time.monotonic()
        tally = Tally()
        reason = ""
        try:
            first, is_http2 = await self._first_bytes(reader, writer)
            if is_http2:
                reason = await self._http2(reader, writer, first=first, peer=peer, tally=tally)
            elif first:
                reason = await self._http1(reader, writer, wire, first=first, tally=tally)
            else:
                log.debug("connection without a request", extra={"fields": {"peer": peer}})
        except OSError as error:
            log.debug("connection without a request", extra={"fields": {"peer": peer, "reason": str(error)}})
        finally:
            writer.close()
            if tally.count:
                _closed(peer=peer, tally=tally, started=started, reason=reason or "ended at once")

    async def _first_bytes(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> tuple[bytes, bool]:
        if self._stop.draining.is_set():  # its TLS handshake ended after we had closed the door
            return b"", False
        greeting = Greeting(reader=reader, writer=writer)
        self._open.add(greeting)
        try:
            return await greeting.first_bytes(seconds=HANDSHAKE_TIMEOUT)
        finally:
            self._open.discard(greeting)

    async def _http2(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, first: bytes, peer: str, tally: Tally
    ) -> str:
        core = Connection(client=False)
        session = Session(reader=reader, writer=writer, core=core, hello=HANDSHAKE_TIMEOUT, first=first)
        self._open.add(session)
        try:
            async with asyncio.TaskGroup() as group:
                session.on_stream(lambda stream: group.create_task(self._stream(session, stream, tally=tally)))
                try:
                    await session.run()
                finally:
                    self._open.discard(session)
                    await session.close()
        finally:
            if session.fault:
                log.warning("connection refused", extra={"fields": {"peer": peer, "reason": session.fault}})
        return session.fault or "ended"

    async def _http1(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, wire: Wire, *, first: bytes, tally: Tally
    ) -> str:
        from hbone.connection_http1 import ClientConnection  # late: it brings h11, which no tunnel needs

        connection = ClientConnection(
            reader=reader,
            writer=writer,
            wire=wire,
            first=first,
            serve=lambda inbound: self._public.serve(inbound, tally=tally),
            work=self._work,
        )
        self._open.add(connection)
        try:
            await connection.run()
        finally:
            self._open.discard(connection)
            tally.count = connection.count
        return connection.reason

    async def _greet(self, connected: socket.socket) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, Wire]:
        """Put asyncio's streams over the connection, and TLS between, if we serve it. Raises OSError."""
        sockets.tune(connected)
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader()
        wire = Wire(reader)
        tls = self._settings.tls
        transport, _ = await loop.connect_accepted_socket(
            lambda: wire, connected, ssl=tls, ssl_handshake_timeout=HANDSHAKE_TIMEOUT if tls else None
        )
        return reader, asyncio.StreamWriter(transport, wire, reader, loop), wire

    async def _stream(self, session: Session, stream: Stream, *, tally: Tally) -> None:
        try:
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
            session.forget(stream)

    async def _serve(self, stream: Stream, *, tally: Tally) -> None:
        if stream.is_given_up:  # in the same breath: the application need not hear of it
            return
        found = request.http2(stream.fields, is_empty=stream.is_empty and not stream.trailers)
        is_tunnel = stream.path.startswith(PREFIX) or not self._public.is_served
        if isinstance(found, Refusal):
            inbound = Http2Inbound(stream=stream, request=request.UNREADABLE)
            await self._public.refuse(inbound, found, tally=tally)
        elif is_tunnel:
            await self._tunnels.serve(stream)
        else:
            await self._public.serve(Http2Inbound(stream=stream, request=found), tally=tally)


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
