"""Requests that are no tunnels: decides whether one goes to the application, and sees it through."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

from hbone.application import Application
from hbone.exchange import Exchange
from hbone.inbound import Gone, Inbound
from hbone.message import Request
from hbone.offers import Offers, Refusal
from hbone.reserved import is_reserved
from hbone.work import Work

log = logging.getLogger(__name__)

APP, NONE = "app", "none"
CHOICES = (APP, NONE)
QUIET = 10.0  # seconds between two lines that say the same


@dataclass(kw_only=True)
class Tally:
    """What one connection of a client has carried, tunnels apart."""

    count: int = 0
    sent: int = 0
    received: int = 0


class Public:
    """The public's side of the server; ``application`` is None when it is not served."""

    def __init__(self, *, offers: Offers, application: Application | None, work: Work) -> None:
        self._offers = offers
        self._application = application
        self._work = work
        self._said = -QUIET

    @property
    def is_served(self) -> bool:
        return self._application is not None

    async def serve(self, inbound: Inbound, *, tally: Tally) -> None:
        """Answer the request, by the application or by a refusal."""
        tally.count += 1
        try:
            with self._work.one():
                await self._serve(inbound, tally=tally)
        except Gone:
            return
        await inbound.finish()

    async def refuse(self, inbound: Inbound, refusal: Refusal, *, tally: Tally) -> None:
        """Answer what is no request for anybody."""
        tally.count += 1
        log.debug("request refused", extra={"fields": {"status": refusal.status, "reason": refusal.text.strip()}})
        try:
            await inbound.refuse(refusal)
        except Gone:
            return
        await inbound.finish()

    async def _serve(self, inbound: Inbound, *, tally: Tally) -> None:
        if refusal := self._refusal(inbound.request):
            fields = {"status": refusal.status, "reason": refusal.text.strip()}
            log.debug("request refused", extra={"fields": fields})
            await inbound.refuse(refusal)
            return
        assert self._application is not None  # noqa: S101 - else it is refused
        exchange = Exchange(inbound=inbound, application=self._application)
        try:
            await exchange.run()
        finally:
            tally.sent += exchange.sent
            tally.received += exchange.received
            if exchange.app_reason:
                self._warn(exchange.app_reason)

    def _refusal(self, request: Request) -> Refusal | None:
        if not self.is_served or is_reserved(request.path):
            found = self._offers.find(method=request.method.decode(), path=request.path.decode())
            if isinstance(found, Refusal):
                return found if found.status != 404 else Refusal(status=404, text="no such path\n")
            return Refusal(status=505, text="a tunnel needs HTTP/2\n")
        return None

    def _warn(self, reason: str) -> None:
        """Say what is wrong with the application, and not for each request of thousands."""
        now = asyncio.get_running_loop().time()
        if now - self._said >= QUIET:
            self._said = now
            log.warning("request failed", extra={"fields": {"reason": reason}})
