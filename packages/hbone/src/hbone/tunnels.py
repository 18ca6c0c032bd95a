"""The server's side of tunnels: dials what a request names, answers, and relays."""

from __future__ import annotations

import logging
import os
import re
import time

from hbone import sockets
from hbone.offers import Offers, Refusal
from hbone.relay import Relay
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

    async def serve(self, stream: Stream) -> None:
        """Serve a request for a tunnel to its end, or refuse it. Raises StreamBroken."""
        found = self._offers.find(method=stream.method, path=stream.path)
        if isinstance(found, Refusal):
            await self._refuse(stream, found)
            return
        host = self._loopback
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

    def name(self, path: str) -> str:
        """What of a path may be logged."""
        found = _LOGGED.match(path)
        return found[0] if found else ""

    async def _refuse(self, stream: Stream, refusal: Refusal) -> None:
        fields = {"target": self.name(stream.path), "status": refusal.status, "reason": refusal.text.strip()}
        log.info("tunnel refused", extra={"fields": fields})
        stream.respond(refusal.status, refusal.text, headers=refusal.headers)
        await stream.discard(seconds=PATIENCE)
