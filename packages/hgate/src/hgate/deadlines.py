"""Deadlines of many things that all have the same time: one timer for all of them, not one for each."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

from hgate.bugs import place_of

log = logging.getLogger(__name__)

Item = TypeVar("Item")


class Deadlines(Generic[Item]):
    """Things that must be done within ``seconds``; of one that is not, ``passed`` is told."""

    def __init__(self, *, seconds: float, passed: Callable[[Item], None]) -> None:
        self.seconds = seconds
        self._passed = passed
        self._loop = asyncio.get_running_loop()
        self._due: OrderedDict[Item, float] = OrderedDict()  # the oldest is first, as all have the same time
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._due)

    @property
    def oldest(self) -> Item | None:
        """What has been waited for longest."""
        return next(iter(self._due), None)

    def add(self, item: Item) -> None:
        due = self._due[item] = self._loop.time() + self.seconds
        if self._timer is None:
            self._timer = self._loop.call_at(due, self._look)

    def done(self, item: Item) -> None:
        """It has come about, or does not matter any more."""
        self._due.pop(item, None)

    def take_all(self) -> list[Item]:
        """All that were not done; nothing is waited for any more."""
        items = list(self._due)
        self._due.clear()
        return items

    def _look(self) -> None:
        self._timer = None
        now = self._loop.time()
        while self._due:
            item, due = next(iter(self._due.items()))
            if due > now:
                self._timer = self._loop.call_at(due, self._look)
                return
            del self._due[item]
            try:
                self._passed(item)
            except Exception as error:  # noqa: BLE001 - the others have their deadlines all the same
                log.error("a bug at a deadline", extra={"fields": {"reason": place_of(error)}})
