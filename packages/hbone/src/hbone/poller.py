"""Calls back when files are ready: at once where there is epoll(7), by asyncio's own readers and writers elsewhere.

A callback of asyncio's costs a handle, a turn in a queue and a context; where a connection is a handful of system
calls, that is as much again. ``stop.run`` makes a loop that does without.
"""

from __future__ import annotations

import asyncio
import select
import weakref
from collections.abc import Callable
from typing import Protocol

from hbone.buffers import Buffers

# As epoll(7) has them, which other systems have not.
READ, WRITE, BROKEN, HUNG_UP = 0x1, 0x4, 0x8, 0x10
ONE_OF_MANY = 1 << 28  # EPOLLEXCLUSIVE: of all who wait for one listening socket, one is woken
Call = Callable[[int], object]


class Poller(Protocol):
    """Who waits."""

    buffers: Buffers

    def set(self, file: int, mask: int, call: Call) -> None:
        """Call with what the file is ready for, when it is for one of these, or broken. Raises OSError."""

    def drop(self, file: int) -> None:
        """Call no more; to be told before the file is closed."""

    def forget(self, file: int) -> None:
        """The same when it is closed right after this, by its only owner: the kernel needs no word then."""


def new_loop(*, splices: bool = True) -> asyncio.AbstractEventLoop:
    """A loop of asyncio with the quickest poller that this system has; not ``splices``: it copies all payload."""
    if not hasattr(select, "epoll"):
        return asyncio.SelectorEventLoop()
    from hbone.poller_epoll import EpollLoop

    return EpollLoop(splices=splices)


def of_loop() -> Poller:
    """The running loop's poller."""
    loop = asyncio.get_running_loop()
    poller: Poller | None = getattr(loop, "poller", None)
    if poller is None:
        poller = _portable.get(loop)
    if poller is None:
        poller = _portable[loop] = PortablePoller(loop)
    return poller


class PortablePoller:
    """The same by what every loop of asyncio has."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.buffers = Buffers()
        self._loop = weakref.ref(loop)
        self._masks: dict[int, int] = {}

    def set(self, file: int, mask: int, call: Call) -> None:
        loop, before = self._loop(), self._masks.get(file, 0)
        if loop is None:
            return
        if mask & READ:
            loop.add_reader(file, call, READ)
        elif before & READ:
            loop.remove_reader(file)
        if mask & WRITE:
            loop.add_writer(file, call, WRITE)
        elif before & WRITE:
            loop.remove_writer(file)
        self._masks[file] = mask

    def forget(self, file: int) -> None:
        self.drop(file)

    def drop(self, file: int) -> None:
        loop, before = self._loop(), self._masks.pop(file, 0)
        if loop is None:
            return
        if before & READ:
            loop.remove_reader(file)
        if before & WRITE:
            loop.remove_writer(file)


# A loop that is not ours has no place for it, and connections must share one: its buffers are large.
_portable: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, PortablePoller] = weakref.WeakKeyDictionary()
