"""The gateway: takes a TLS connection, reads where it wants to go, and tunnels its bytes there unopened."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from dataclasses import dataclass

from hbone import sockets
from hbone.acceptor import accept
from hbone.client import Client, failure_of
from hbone.client import Settings as ClientSettings
from hbone.errors import Failure as TunnelFailure
from hbone.forward import carry
from hbone.refusal import Refused
from hbone.relay import Relay
from hbone.stop import Stop
from hbone.urls import URL, Address, parse_url
from hgate.clienthello import ClientHello, HelloError, NotTLS, Parser
from hgate.routes import Routes, RouteTable, read_sni

log = logging.getLogger(__name__)

HELLO_TIMEOUT = 10.0  # seconds until the ClientHello must be whole
MAX_SNI_LOGGED = 255


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Where to listen, what leads where, how tunnels are opened."""

    listen: Address
    routes: Routes
    client: ClientSettings
    hello_timeout: float = HELLO_TIMEOUT


class Gateway:
    """The daemon's work; ``serve`` returns when it is drained."""

    def __init__(self, *, settings: Settings, stop: Stop) -> None:
        self._settings = settings
        self._stop = stop
        self._table = RouteTable(settings.routes)

    async def serve(self) -> None:
        """Listen, and carry each connection, until drained. Raises Misconfigured of hbone."""
        listen, routes = self._settings.listen, self._settings.routes
        async with asyncio.TaskGroup() as group:
            client = Client(settings=self._settings.client, group=group)
            for route in routes:
                client.check(parse_url(route.url))
            listener = sockets.listen(listen.host, listen.port)

            async def serve(connected: socket.socket, peer: str) -> None:
                await self._connection(client, sockets.Socket(connected), peer)

            fields = {"address": sockets.name(listener), "count": len(routes)}
            log.info("ready", extra={"fields": fields})
            try:
                await accept(listener, stop=self._stop, serve=serve)
            finally:
                await client.close()

    async def _connection(self, client: Client, local: sockets.Socket, peer: str) -> None:
        started = time.monotonic()
        try:
            hello, first = await self._hello(local)
        except (HelloError, OSError) as error:
            _refused(peer=peer, sni="", reason=str(error))
            return
        destination = read_sni(hello.sni)
        target = self._table.find(destination) if destination else None
        url = target.place if target else None
        if not isinstance(url, URL):
            reason = "no route" if destination else "not the name of a service" if hello.sni else "no server name"
            _refused(peer=peer, sni=hello.sni, reason=reason)
            return

        def closed(relay: Relay) -> None:
            fields: dict[str, object] = {
                "peer": peer,
                "sni": hello.sni,
                "url": str(url),
                "sent": relay.from_local,
                "received": relay.to_local,
                "duration_ms": round((time.monotonic() - started) * 1000),
                "reason": relay.reason,
            }
            log.info("connection closed", extra={"fields": fields})

        try:
            await carry(client=client, url=url, local=local, first=first, closed=closed)
        except (Refused, TunnelFailure) as error:
            _failed(error, peer=peer, sni=hello.sni, url=str(url))

    async def _hello(self, local: sockets.Socket) -> tuple[ClientHello, bytes]:
        """The hello, and all bytes read so far: they go into the tunnel first."""
        parser = Parser()
        read = bytearray()
        try:
            async with asyncio.timeout(self._settings.hello_timeout):
                while (hello := parser.hello) is None:
                    data = await local.read()
                    if not data:
                        raise NotTLS("the connection ended before a whole ClientHello")
                    read += data
                    parser.feed(data)
        except TimeoutError as error:
            seconds = self._settings.hello_timeout
            raise HelloError(f"no whole ClientHello within {seconds:g} s") from error
        return hello, bytes(read)


def _refused(*, peer: str, sni: str, reason: str) -> None:
    fields = {"peer": peer, "sni": sni[:MAX_SNI_LOGGED], "reason": reason}
    log.warning("connection refused", extra={"fields": fields})


def _failed(error: Refused | TunnelFailure, *, peer: str, sni: str, url: str) -> None:
    failure = failure_of(error)
    fields: dict[str, object] = {"peer": peer, "sni": sni, "url": url}
    if isinstance(error, Refused):
        fields["status"] = error.status
    fields["reason"] = failure.message + (f" (hint: {failure.hint})" if failure.hint else "")
    log.warning("connection failed", extra={"fields": fields})
