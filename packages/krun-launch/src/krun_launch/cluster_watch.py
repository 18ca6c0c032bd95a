"""Follows the clusters that Envoy has: asks its admin interface now and then, and writes down which ports there are.

Envoy is asked a small question; only when the answer differs from the last one, for the names of all clusters. Nothing
here waits: an Envoy that is frozen is asked again later.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from krun_launch import istio_scopes, lines, rundir
from krun_launch.probe import Exchange

TYPE_CHECKING = False
if TYPE_CHECKING:
    from krun_launch.loop import Loop
    from krun_launch.plan import Scopes

EVERY = 2.0  # seconds between questions
LIMIT = 1.0  # seconds for one answer
LARGEST = 1 << 24  # bytes of an answer: some hundred thousand names


class ClusterWatch:
    """``act`` starts what is due and gives up what takes too long; the loop does the rest."""

    def __init__(self, scopes: Scopes, *, loop: Loop) -> None:
        self.has_looked = False  # once at least
        self._scopes = scopes
        self._loop = loop
        self._due = time.monotonic()
        self._exchange: Exchange | None = None
        self._then: Callable[[str], None] = self._compare
        self._change = ""  # the answer that was told last, and the one that the names belong to
        self._written = ""

    def act(self) -> float:
        """The seconds after which to come again."""
        now = time.monotonic()
        if now < self._due:
            return self._due - now
        if self._exchange is not None:
            self._forget()
            self._due = now + EVERY
            return EVERY
        if self.has_looked:
            self._ask(istio_scopes.CHANGE, then=self._compare)
        else:
            # The names at once: the application is waiting. What they belong to is asked the next time.
            self._ask(istio_scopes.NAMES, then=lambda names: self._write(names, change=""))
        return LIMIT

    def close(self) -> None:
        self._forget()

    def _ask(self, path: str, *, then: Callable[[str], None]) -> None:
        self._due = time.monotonic() + LIMIT
        self._then = then
        host, port = self._scopes.host, self._scopes.port
        self._exchange = Exchange(host=host, port=port, path=path, wants_body=True, limit=LARGEST)
        self._go_on()

    def _go_on(self) -> None:
        """The socket is ready, or new."""
        exchange = self._exchange
        if exchange is None:
            return
        descriptor = exchange.fileno()
        if not exchange.is_done:
            self._loop.watch(descriptor, exchange.events, self._advance)
            return
        self._forget()
        self._due = time.monotonic() + EVERY
        if exchange.status == 200:
            self._then(exchange.body)

    def _advance(self) -> None:
        exchange = self._exchange
        if exchange is not None:
            descriptor = exchange.fileno()
            exchange.advance()
            if exchange.is_done:
                self._loop.unwatch(descriptor)
            self._go_on()

    def _forget(self) -> None:
        if self._exchange is not None and not self._exchange.is_done:
            self._loop.unwatch(self._exchange.fileno())
            self._exchange.close()
        self._exchange = None

    def _compare(self, text: str) -> None:
        if text == self._change:
            return
        self._ask(istio_scopes.NAMES, then=lambda names: self._write(names, change=text))

    def _write(self, names: str, *, change: str) -> None:
        text = istio_scopes.scopes_of(names)
        if text != self._written:
            try:
                rundir.replace(self._scopes.file, text, owner=self._scopes.owner)
            except OSError as error:
                lines.warning(
                    "ports of the mesh cannot be written",
                    target=str(self._scopes.file),
                    reason=error.strerror,
                )
                return
            self._written = text
        self._change = change
        self.has_looked = True
