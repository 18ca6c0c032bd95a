"""Holds back the end of a response while the request still arrives.

The front of a serverless platform takes a response that ends before its request for an abort, and what it still holds
is lost in both directions: with a quiet client too, the front needs the time to hand on the answer. But a client may
wait for our end before it ends: so no longer than it is busy.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

QUIET = 0.25  # seconds that the peer must be quiet after our last byte


class Linger:
    """One such end; ``over`` is called when it is time for it."""

    __slots__ = ("_arrived", "_fail_at", "_loop", "_over", "_quiet_at", "_timer")

    def __init__(self, *, arrived: Callable[[], int], over: Callable[[], object], patience: float) -> None:
        """``arrived`` tells how much of the request has come; no longer than ``patience``, in seconds."""
        self._arrived, self._over = arrived, over
        self._loop = asyncio.get_running_loop()
        self._fail_at = self._loop.time() + patience
        self._quiet_at = arrived()
        self._timer = self._loop.call_later(QUIET, self._look)

    def cancel(self) -> None:
        self._timer.cancel()

    def _look(self) -> None:
        now = self._arrived()
        if self._quiet_at == now or self._loop.time() >= self._fail_at:
            self._over()
        else:
            self._quiet_at = now
            self._timer = self._loop.call_later(QUIET, self._look)
