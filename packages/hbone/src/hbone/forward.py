"""Carries local TCP connections to tunnels, one for each."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Callable

from hbone import sockets
from hbone.acceptor import accept
from hbone.client import Client, Settings, close_stream, failure_of
from hbone.errors import Failure
from hbone.refusal import Refused
from hbone.relay import Relay
from hbone.stop import Stop
from hbone.urls import URL, Address

log = logging.getLogger(__name__)


async def carry(
    *, client: Client, url: URL, local: sockets.Socket, closed: Callable[[Relay], None], first: bytes = b""
) -> None:
    """Open a tunnel, send ``first``, relay until both are done, and close both; ``closed`` is told what was relayed.

    Raises:
        Refused, Failure: there is no tunnel; the local end is still open then.
    """
    stream = await client.open(url)
    relay = Relay(stream=stream, local=local, first=first)
    try:
        await relay.run()
    finally:
        close_stream(stream)
        local.close(is_orderly=relay.is_orderly)
        closed(relay)


async def forward(*, listen: Address, url: URL, settings: Settings, stop: Stop) -> None:
    """Listen, and carry each connection to the tunnel, until drained. Raises Misconfigured."""
    async with asyncio.TaskGroup() as group:
        client = Client(settings=settings, group=group)
        client.check(url)
        listener = sockets.listen(listen.host, listen.port)

        async def serve(connected: socket.socket, peer: str) -> None:
            await _serve(client=client, url=url, local=sockets.Socket(connected), peer=peer)

        log.info("ready", extra={"fields": {"address": sockets.name(listener), "url": str(url)}})
        try:
            await accept(listener, stop=stop, serve=serve)
        finally:
            await client.close()


async def _serve(*, client: Client, url: URL, local: sockets.Socket, peer: str) -> None:
    started = time.monotonic()

    def closed(relay: Relay) -> None:
        fields = {
            "peer": peer,
            "url": str(url),
            "sent": relay.from_local,
            "received": relay.to_local,
            "duration_ms": round((time.monotonic() - started) * 1000),
            "reason": relay.reason,
        }
        log.info("tunnel closed", extra={"fields": fields})

    try:
        await carry(client=client, url=url, local=local, closed=closed)
    except (Refused, Failure) as error:
        failure = failure_of(error)
        reason = f"{failure.message} (hint: {failure.hint})"
        log.warning("tunnel refused", extra={"fields": {"peer": peer, "url": str(url), "reason": reason}})
