"""hboned's server: each request that names an offered port becomes a tunnel to it."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import ssl
import time
from dataclasses import dataclass

from hbone import sockets
from hbone.acceptor import accept
from hbone.offers import Offers, Refusal
from hbone.relay import Relay
from hbone.session import Session
from hbone.stop import Stop
from hbone.stream import Stream, StreamBroken
from hbone.tunnel import INTERNAL_ERROR, Connection

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
            group.create_task(accept(listener, stop=self._stop, serve=self._connection))
            log.info("ready", extra={"fields": {"address": address, "count": len(self._settings.offers.ports)}})
            await self._stop.draining.wait()
            for session in list(self._sessions):
                session.drain()

    async def _connection(self, connected: socket.socket, peer: str) -> None:
        try:
            reader, writer = await self._greet(connected)
        except OSError as error:  # of TLS, or the connection's
            reason = getattr(error, "reason", None) or error.strerror or str(error)
            log.warning("connection refused", extra={"fields": {"peer": peer, "reason": f"TLS failed: {reason}"}})
            return
        if self._stop.draining.is_set():
            writer.transport.abort()  # its TLS handshake ended after we had closed the door
            return
        session = Session(reader=reader, writer=writer, core=Connection(client=False), hello=HANDSHAKE_TIMEOUT)
        self._sessions.add(session)
        try:
            async with asyncio.TaskGroup() as group:
                session.on_stream(lambda stream: group.create_task(self._stream(session, stream)))
                try:
                    await session.run()
                finally:
                    self._sessions.discard(session)
                    await session.close()
        finally:
            if session.fault:
                log.warning("connection refused", extra={"fields": {"peer": peer, "reason": session.fault}})

    async def _greet(self, connected: socket.socket) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Put asyncio's streams over the connection, and TLS between, if we serve it. Raises OSError."""
        sockets.tune(connected)
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader()
        protocol = asyncio.StreamReaderProtocol(reader)
        tls = self._settings.tls
        transport, _ = await loop.connect_accepted_socket(
            lambda: protocol, connected, ssl=tls, ssl_handshake_timeout=HANDSHAKE_TIMEOUT if tls else None
        )
        return reader, asyncio.StreamWriter(transport, protocol, reader, loop)

    async def _stream(self, session: Session, stream: Stream) -> None:
        try:
            await self._tunnel(stream)
        except StreamBroken as error:
            log.info("tunnel refused", extra={"fields": {"target": stream.path[:100], "reason": str(error)}})
        except Exception as error:  # noqa: BLE001 - a front has tunnels of many users in one connection
            log.error("a bug ended a tunnel", extra={"fields": {"target": stream.path[:100], "reason": repr(error)}})
            stream.reset(INTERNAL_ERROR)
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
        stream.check()  # reset in the same breath: not worth a dial
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
