"""One connection of a client: what is known of it, and the one line that is logged of it."""

from __future__ import annotations

import contextlib
import logging
import socket
import struct
import time
from sys import intern

from hgate.counts import Counts
from hgate.routes import Target

log = logging.getLogger(__name__)

MAX_SNI_LOGGED = 255
ENDED = "ended"
ENDED_NOW = "ended at once, by a signal"
BY_BUG = "a bug of the gate's: the line before says where"


class Connection:
    """The connection; whoever is done with it says so by one of ``closed``, ``refused`` and ``failed``."""

    __slots__ = ("_peer", "_started", "counts", "sni", "socket", "target")

    def __init__(self, connected: socket.socket, peer: tuple[str, int], *, counts: Counts) -> None:
        self.socket = connected
        self.sni = ""
        self.target: Target | None = None
        self.counts = counts
        self._peer = (intern(peer[0]), peer[1])  # of ten thousand connections most are from a few hosts
        self._started = time.monotonic()

    @property
    def peer(self) -> str:
        host, port = self._peer
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def closed(self, *, sent: int, received: int, reason: str) -> None:
        """It was led on, and that is over; ``reason`` is ENDED when all went well."""
        if not log.isEnabledFor(logging.INFO):
            return
        fields = {
            **self._fields(),
            "sent": sent,
            "received": received,
            "duration_ms": round((time.monotonic() - self._started) * 1000),
            "reason": reason,
        }
        log.info("connection closed", extra={"fields": fields})

    def refused(self, reason: str, *, cause: str) -> None:
        """It is not led on, for what the client said; closes it."""
        self.counts.errors[cause] += 1
        self.close(is_orderly=False)
        fields = {"peer": self.peer, "sni": self.sni[:MAX_SNI_LOGGED], "reason": reason}
        log.warning("connection refused", extra={"fields": fields})

    def failed(self, reason: str, *, cause: str, status: int = 0) -> None:
        """It could not be led on; closes it."""
        self.counts.errors[cause] += 1
        self.close(is_orderly=False)
        fields = {**self._fields(), **({"status": status} if status else {}), "reason": reason}
        log.warning("connection failed", extra={"fields": fields})

    def close(self, *, is_orderly: bool) -> None:
        close(self.socket, is_orderly=is_orderly)

    def _fields(self) -> dict[str, object]:
        return {"peer": self.peer, "sni": self.sni[:MAX_SNI_LOGGED], "url": str(self.target or "")}


def close(connected: socket.socket, *, is_orderly: bool) -> None:
    """Close; not orderly means a reset, so that the other side takes half an answer for a whole one nowhere."""
    if not is_orderly:
        with contextlib.suppress(OSError):
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connected.close()
