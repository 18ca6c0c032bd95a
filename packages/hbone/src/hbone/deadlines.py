"""Waits that all last equally long: one timer for any number of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable


class Deadlines:
    """``late`` is called with each that is still here when its time has come."""

    def __init__(self, *, seconds: float, late: Callable[[Hashable], object]) -> None:
        self._seconds = seconds
        self._late = late
        self._loop = asyncio.get_running_loop()
        self._ends: dict[Hashable, float] = {}  # in the order in which they come
        self._timer: asyncio.TimerHandle | None = None

    def add(self, waiter: Hashable) -> None:
        end = self._loop.time() + self._seconds
        self._ends[waiter] = end
        if self._timer is None:
            self._timer = self._loop.call_at(end, self._look)

    def discard(self, waiter: Hashable) -> None:
        self._ends.pop(waiter, None)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = None
        now = self._loop.time()
        while self._ends:
            waiter, end = next(iter(self._ends.items()))
            if end > now:
                self._timer = self._loop.call_at(end, self._look)
                return
            del self._ends[waiter]
            self._late(waiter)
