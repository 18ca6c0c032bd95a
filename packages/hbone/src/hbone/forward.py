"""Carries local TCP connections to tunnels, one for each."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Sequence

from hbone import sockets
from hbone.acceptor import OWN_FILES, raise_file_limit
from hbone.client import Client
from hbone.doorway import Doorway, Peer
from hbone.ended import Ended
from hbone.settings import Settings
from hbone.stop import Stop
from hbone.urls import URL, Forward

log = logging.getLogger(__name__)


async def forward(*, forwards: Sequence[Forward], settings: Settings, stop: Stop) -> None:
    """Listen, and carry each connection to its tunnel, until drained. Raises Misconfigured."""
    async with asyncio.TaskGroup() as group:
        client = Client(settings=settings, group=group)
        doors: list[_Door] = []
        try:
            for each in forwards:
                client.check(each.url)
            # A tunnel takes one file here, and its connection's is one of many.
            room = max(1, (raise_file_limit() - OWN_FILES) // len(forwards))
            doors += [_Door(each.url, listener, client=client, room=room) for each, listener in _listening(forwards)]
            for door in doors:
                door.open()
            await stop.draining.wait()
            for door in doors:
                door.doorway.close()
            for door in doors:
                await door.doorway.is_empty.wait()
        finally:
            for door in doors:
                door.doorway.close()
            await client.close()


def _listening(forwards: Sequence[Forward]) -> list[tuple[Forward, socket.socket]]:
    """All of them, or none. Raises Misconfigured, which names the one that cannot."""
    found: list[tuple[Forward, socket.socket]] = []
    try:
        for each in forwards:
            found.append((each, sockets.listen(each.listen.host, each.listen.port)))
    except BaseException:
        for _, listener in found:
            listener.close()
        raise
    return found


class _Door:
    """One listening socket, and the connections that came by it."""

    def __init__(self, url: URL, listener: socket.socket, *, client: Client, room: int) -> None:
        self._url = url
        self._client = client
        self._address = sockets.name(listener)
        self._here: set[socket.socket] = set()
        self.doorway = Doorway(listener, room=room, count=lambda: len(self._here), arrived=self._arrived)

    def open(self) -> None:
        self.doorway.open()
        log.info("ready", extra={"fields": {"address": self._address, "url": str(self._url)}})

    def _arrived(self, connected: socket.socket, peer: Peer) -> None:
        sockets.tune(connected)
        self._here.add(connected)
        started = time.monotonic()

        def closed(ended: Ended) -> None:
            self._here.discard(connected)
            self.doorway.left()
            if ended.failure is not None:
                sockets.close(connected, is_orderly=False)
            _log(ended, url=self._url, peer=f"{peer[0]}:{peer[1]}", started=started)

        self._client.carry(url=self._url, local=connected, closed=closed)


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
