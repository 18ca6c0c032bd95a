"""Carries local TCP connections to tunnels, one for each."""

from __future__ import annotations

import asyncio
import logging
import socket
import time

from hbone import sockets
from hbone.acceptor import OWN_FILES, raise_file_limit
from hbone.client import Client, Settings
from hbone.doorway import Doorway, Peer
from hbone.ended import Ended
from hbone.stop import Stop
from hbone.urls import URL, Address

log = logging.getLogger(__name__)


async def forward(*, listen: Address, url: URL, settings: Settings, stop: Stop) -> None:
    """Listen, and carry each connection to the tunnel, until drained. Raises Misconfigured."""
    async with asyncio.TaskGroup() as group:
        client = Client(settings=settings, group=group)
        client.check(url)
        listener = sockets.listen(listen.host, listen.port)

        here: set[socket.socket] = set()

        def arrived(connected: socket.socket, peer: Peer) -> None:
            sockets.tune(connected)
            here.add(connected)
            started = time.monotonic()

            def closed(ended: Ended) -> None:
                here.discard(connected)
                doorway.left()
                if ended.failure is not None:
                    sockets.close(connected, is_orderly=False)
                _log(ended, url=url, peer=f"{peer[0]}:{peer[1]}", started=started)

            client.carry(url=url, local=connected, closed=closed)

        # A tunnel takes one file here, and its connection's is one of many.
        room = max(1, raise_file_limit() - OWN_FILES)
        doorway = Doorway(listener, room=room, count=lambda: len(here), arrived=arrived)
        doorway.open()
        log.info("ready", extra={"fields": {"address": sockets.name(listener), "url": str(url)}})
        try:
            await stop.draining.wait()
            doorway.close()
            await doorway.is_empty.wait()
        finally:
            doorway.close()
            await client.close()


def _log(ended: Ended, *, url: URL, peer: str, started: float) -> None:
    failure = ended.failure
    if failure is not None:
        reason = f"{failure.message} (hint: {failure.hint})"
        log.warning("tunnel refused", extra={"fields": {"peer": peer, "url": str(url), "reason": reason}})
    elif log.isEnabledFor(logging.INFO):
        fields = {
            "peer": peer,
            "url": str(url),
            "sent": ended.sent,
            "received": ended.received,
            "duration_ms": round((time.monotonic() - started) * 1000),
            "reason": ended.reason,
        }
        log.info("tunnel closed", extra={"fields": fields})
