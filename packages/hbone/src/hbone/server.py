"""hboned's server: each request that names an offered port becomes a tunnel to it."""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
import time
from dataclasses import dataclass

from hbone import sockets
from hbone.offers import Offers, Refusal
from hbone.relay import Relay
from hbone.session import Session, Stream, StreamBroken
from hbone.stop import Stop
from hbone.tunnel import Connection

log = logging.getLogger(__name__)

DIAL_TIMEOUT = 5.0  # seconds; targets are local
PATIENCE = 5.0  # seconds that a request's rest is read and dropped
HANDSHAKE_TIMEOUT = 10.0


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Where to listen, and what is behind."""

    bind: str
    port: int
    loopback: str
    offers: Offers
    tls: ssl.SSLContext | None = None


class Server:
    """The daemon's work; ``serve`` returns when it is drained."""

    def __init__(self, *, settings: Settings, stop: Stop) -> None:
        self._settings = settings
        self._stop = stop
        self._sessions: set[Session] = set()

    async def serve(self) -> None:
        """Listen, and serve until the first signal and the end of the last tunnel. Raises Misconfigured."""
        listener = sockets.listen(self._settings.bind, self._settings.port)
        address = sockets.name(listener)
        async with asyncio.TaskGroup() as group:

            def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                if self._stop.draining.is_set():
                    writer.transport.abort()  # its TLS handshake ended after we had closed the door
                else:
                    group.create_task(self._guard(reader, writer))

            tls = self._settings.tls
            server = await asyncio.start_server(
                accepted, sock=listener, ssl=tls, ssl_handshake_timeout=HANDSHAKE_TIMEOUT if tls else None
            )
            log.info("ready", extra={"fields": {"address": address, "count": len(self._settings.offers.ports)}})
            try:
                await self._stop.draining.wait()
            finally:
                server.close()
            for session in list(self._sessions):
                session.drain()

    async def _guard(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._connection(reader, writer)
        except Exception as error:  # noqa: BLE001 - a bug that one client meets must not end the others' tunnels
            log.error("a bug ended a connection", extra={"fields": {"reason": repr(error)}})

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sockets.tune(writer.get_extra_info("socket"))
        async with asyncio.TaskGroup() as group:
            session = Session(reader=reader, writer=writer, core=Connection(client=False), hello=HANDSHAKE_TIMEOUT)
            session.on_stream(lambda stream: group.create_task(self._stream(session, stream)))
            self._sessions.add(session)
            try:
                await session.run()
            finally:
                self._sessions.discard(session)
                await session.close()

    async def _stream(self, session: Session, stream: Stream) -> None:
        try:
            await self._tunnel(stream)
        except StreamBroken as error:
            log.info("tunnel refused", extra={"fields": {"target": stream.path[:100], "reason": str(error)}})
        finally:
            session.forget(stream)

    async def _tunnel(self, stream: Stream) -> None:
        found = self._settings.offers.find(method=stream.method, path=stream.path)
        if isinstance(found, Refusal):
            await self._refuse(stream, found)
            return
        host = self._settings.loopback
        target = f"[{host}]:{found}" if ":" in host else f"{host}:{found}"
        started = time.monotonic()
        try:
            dialled = await sockets.dial(host, found, seconds=DIAL_TIMEOUT)
        except TimeoutError:
            await self._refuse(stream, Refusal(status=503, text=f"port {found} does not answer\n"))
            return
        except OSError as error:
            # asyncio's own text names the address: what is behind is not the client's business.
            text = f"nobody listens on port {found}: {os.strerror(error.errno or 0)}\n"
            await self._refuse(stream, Refusal(status=503, text=text))
            return
        local = sockets.Socket(dialled)
        relay = Relay(stream=stream, local=local, patience=PATIENCE)
        try:
            stream.respond(200)
            await relay.run()
        finally:
            local.close(is_orderly=relay.is_orderly)
            fields = {
                "target": target,
                "sent": relay.to_local,
                "received": relay.from_local,
                "duration_ms": round((time.monotonic() - started) * 1000),
                "reason": relay.reason,
            }
            log.info("tunnel closed", extra={"fields": fields})

    async def _refuse(self, stream: Stream, refusal: Refusal) -> None:
        fields = {"target": stream.path[:100], "status": refusal.status, "reason": refusal.text.strip()}
        log.info("tunnel refused", extra={"fields": fields})
        stream.respond(refusal.status, refusal.text, headers=refusal.headers)
        await stream.discard(seconds=PATIENCE)
