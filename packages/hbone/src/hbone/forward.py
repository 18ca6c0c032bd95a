"""Carries local TCP connections to tunnels, one for each."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Callable

from hbone import sockets
from hbone.acceptor import accept
from hbone.client import Client, Settings, close_stream
from hbone.ended import Ended
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
            await _serve(client=client, url=url, connected=connected, peer=peer)

        log.info("ready", extra={"fields": {"address": sockets.name(listener), "url": str(url)}})
        try:
            await accept(listener, stop=stop, serve=serve)
        finally:
            await client.close()


async def _serve(*, client: Client, url: URL, connected: socket.socket, peer: str) -> None:
    started = time.monotonic()
    sockets.tune(connected)
    done = asyncio.Event()

    def closed(ended: Ended) -> None:
        _log(ended, url=url, peer=peer, started=started)
        done.set()

    opening = client.carry(url=url, local=connected, closed=closed)
    try:
        await done.wait()
    finally:
        opening.end_now()


def _log(ended: Ended, *, url: URL, peer: str, started: float) -> None:
    failure = ended.failure
    if failure is not None:
        reason = f"{failure.message} (hint: {failure.hint})"
        log.warning("tunnel refused", extra={"fields": {"peer": peer, "url": str(url), "reason": reason}})
        return
    fields = {
        "peer": peer,
        "url": str(url),
        "sent": ended.sent,
        "received": ended.received,
        "duration_ms": round((time.monotonic() - started) * 1000),
        "reason": ended.reason,
    }
    log.info("tunnel closed", extra={"fields": fields})
