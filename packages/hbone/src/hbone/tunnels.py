"""The server's side of tunnels: dials what a request names, answers, and carries."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import re
import socket
import time
from collections.abc import Callable

from hbone import sockets
from hbone.carry import Carry
from hbone.dialling import Dialling
from hbone.flow import Flow
from hbone.offers import Offers, Refusal
from hbone.session import Session
from hbone.stream import Stream

log = logging.getLogger(__name__)

DIAL_TIMEOUT = 5.0  # seconds; targets are local
PATIENCE = 5.0  # seconds that a request's rest is read and dropped
# Of any other path only this much is logged: a query, or what stands for one, may hold a secret.
_LOGGED = re.compile(r"[A-Za-z0-9_./-]{0,100}")


class Tunnels:
    """Tunnels to the ports that are offered."""

    def __init__(self, *, offers: Offers, loopback: str) -> None:
        self._offers = offers
        self._loopback = loopback
        self._family = sockets.family(loopback)

    def find(self, *, method: str, path: str) -> int | Refusal:
        """The local port that a request asks for, or why there is none."""
        return self._offers.find(method=method, path=path)

    def open(
        self, *, session: Session, flow: Flow, port: int, path: str, refuse: Callable[[Dialling, Refusal], object]
    ) -> Dialling:
        """Dial, and carry from then on; ``refuse`` is called when nobody answers. Returns the stream's party."""

        def failed(dialling: Dialling, code: int) -> None:
            if code == errno.ETIMEDOUT:
                refuse(dialling, Refusal(status=503, text=f"port {port} does not answer\n"))
            else:
                text = f"nobody listens on port {port}: {os.strerror(code)}\n"
                refuse(dialling, Refusal(status=503, text=text))

        def gone(reason: str) -> None:
            log.info("tunnel refused", extra={"fields": {"target": self.name(path), "reason": reason}})

        started = time.monotonic()
        dialling = Dialling(
            session=session,
            flow=flow,
            connected=lambda dialling, dialled: self._carry(dialling, dialled, port=port, started=started),
            failed=failed,
            gone=gone,
        )
        # Soon: what is reset in the same breath is not worth a dial.
        asyncio.get_running_loop().call_soon(
            lambda: dialling.dial((self._loopback, port), family=self._family, seconds=DIAL_TIMEOUT)
        )
        return dialling

    def _carry(self, dialling: Dialling, dialled: socket.socket, *, port: int, started: float) -> None:
        session, flow = dialling.session, dialling.flow
        sockets.tune(dialled)

        def closed(carry: Carry) -> None:
            if log.isEnabledFor(logging.INFO):
                self._log(carry, port=port, started=started)

        carry = Carry(session=session, flow=flow, local=dialled, closed=closed, patience=PATIENCE)
        session.streams[flow.number] = carry
        session.core.respond(flow.number, 200)
        session.flush_soon()
        carry.start(is_silent=True)
        if dialling.said:
            carry.received([memoryview(dialling.said)])
        if dialling.is_ended:
            carry.ended()

    def _log(self, carry: Carry, *, port: int, started: float) -> None:
        host = self._loopback
        fields = {
            "target": f"[{host}]:{port}" if ":" in host else f"{host}:{port}",
            "sent": carry.to_local,
            "received": carry.from_local,
            "duration_ms": round((time.monotonic() - started) * 1000),
            "reason": carry.reason,
        }
        log.info("tunnel closed", extra={"fields": fields})

    def name(self, path: str) -> str:
        """What of a path may be logged."""
        found = _LOGGED.match(path)
        return found[0] if found else ""

    async def refuse(self, stream: Stream, refusal: Refusal) -> None:
        fields = {"target": self.name(stream.path), "status": refusal.status, "reason": refusal.text.strip()}
        log.info("tunnel refused", extra={"fields": fields})
        stream.respond(refusal.status, refusal.text, headers=refusal.headers)
        await stream.discard(seconds=PATIENCE)
