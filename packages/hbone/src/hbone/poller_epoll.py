"""One epoll(7) for asyncio's own files and for the thousands that are not its: those are served without a detour."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import select
import selectors
from collections.abc import Callable, Iterator, Mapping
from contextvars import Context
from math import ceil
from time import monotonic
from typing import Any, TypeVarTuple

from hbone.buffers import Buffers
from hbone.poller import READ, WRITE, Call

Ts = TypeVarTuple("Ts")
log = logging.getLogger(__name__)

MAX_EVENTS = 512  # of one wait: then asyncio's timers and calls have their turn


class EpollPoller(selectors.BaseSelector):
    """The selector; ``asyncio.SelectorEventLoop(poller)`` uses it."""

    def __init__(self, *, splices: bool = True) -> None:
        self.buffers = Buffers(splices=splices)
        self._epoll = select.epoll()
        self._calls: dict[int, Call] = {}
        self._keys: dict[int, selectors.SelectorKey] = {}
        # Numbers given to others since the wait: what it found was said of files that are closed by now.
        self._fresh: set[int] = set()
        self.is_due = False  # whether asyncio has been given something to do since it waits

    def set(self, file: int, mask: int, call: Call) -> None:
        """Call with the events of epoll(7), of these kinds, or of an end or an error in any case. Raises OSError."""
        if file in self._calls:
            self._epoll.modify(file, mask)
        else:
            self._epoll.register(file, mask)
            self._fresh.add(file)
        self._calls[file] = call

    def drop(self, file: int) -> None:
        if self._calls.pop(file, None) is not None:
            self._epoll.unregister(file)

    def forget(self, file: int) -> None:
        self._calls.pop(file, None)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Wait, serve what is ours, and return what is asyncio's, or when it has something else to do."""
        self.is_due = False
        end = None if timeout is None else monotonic() + timeout
        while True:
            # asyncio waits for the time of its next timer: a wait that ended before would be a round for nothing.
            seconds = -1.0 if timeout is None else 0.0 if timeout <= 0 else ceil(timeout * 1e3) * 1e-3
            theirs = self._serve(seconds)
            if theirs or self.is_due:
                return theirs
            if end is not None and (timeout := end - monotonic()) <= 0:
                return theirs

    def _serve(self, seconds: float) -> list[tuple[selectors.SelectorKey, int]]:
        try:
            found = self._epoll.poll(seconds, MAX_EVENTS)
        except InterruptedError:
            return []
        fresh, calls = self._fresh, self._calls
        theirs: list[tuple[selectors.SelectorKey, int]] = []
        fresh.clear()
        for file, events in found:
            if file in fresh:
                continue
            call = calls.get(file)
            if call is not None:
                try:
                    call(events)
                except Exception as error:
                    # It must not end the others, and would be met again and again.
                    log.error("a bug ended a connection", extra={"fields": {"reason": repr(error)}}, exc_info=error)
                    with contextlib.suppress(OSError):  # it may have closed it already
                        self.drop(file)
                    _end(call)
            elif (key := self._keys.get(file)) is not None:
                theirs.append((key, _asyncio_mask(events) & key.events))
        return theirs

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        file = _number(fileobj)
        if file in self._keys:
            raise KeyError(f"{fileobj!r} is registered already")
        self._epoll.register(file, _mask(events))
        self._fresh.add(file)
        key = self._keys[file] = selectors.SelectorKey(fileobj, file, events, data)
        return key

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        key = self._keys.pop(_number(fileobj))
        with contextlib.suppress(OSError):  # closed before it was unregistered: then epoll has forgotten it already
            self._epoll.unregister(key.fd)
        return key

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        file = _number(fileobj)
        if self._keys[file].events != events:
            self._epoll.modify(file, _mask(events))
        key = self._keys[file] = selectors.SelectorKey(fileobj, file, events, data)
        return key

    def get_key(self, fileobj: Any) -> selectors.SelectorKey:
        return self._keys[_number(fileobj)]

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return _Registered(self._keys)

    def close(self) -> None:
        if self.buffers.conduit is not None:
            self.buffers.conduit.close()
        self._epoll.close()
        self._keys.clear()
        self._calls.clear()


class _Registered(Mapping[Any, selectors.SelectorKey]):
    """The keys by number or by the object itself: asyncio of Python 3.13 looks here whether it has a socket already."""

    def __init__(self, keys: Mapping[int, selectors.SelectorKey]) -> None:
        self._keys = keys

    def __getitem__(self, fileobj: Any) -> selectors.SelectorKey:
        return self._keys[_number(fileobj)]

    def __len__(self) -> int:
        return len(self._keys)

    def __iter__(self) -> Iterator[int]:
        return iter(self._keys)


class EpollLoop(asyncio.SelectorEventLoop):
    """asyncio's loop, which shows its poller."""

    def __init__(self, *, splices: bool = True) -> None:
        self.poller = EpollPoller(splices=splices)
        super().__init__(self.poller)

    def call_soon(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        self.poller.is_due = True
        return super().call_soon(callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        self.poller.is_due = True
        return super().call_at(when, callback, *args, context=context)


def _end(call: Call) -> None:
    """Let the owner of a call that has failed close what it holds: else it would count as open for ever."""
    owner = getattr(call, "__self__", call)
    end = getattr(owner, "end_by_bug", None) or getattr(owner, "end_now", None)
    if end is not None:
        with contextlib.suppress(Exception):
            end()


def _number(fileobj: Any) -> int:
    return fileobj if isinstance(fileobj, int) else int(fileobj.fileno())


def _mask(events: int) -> int:
    return (READ if events & selectors.EVENT_READ else 0) | (WRITE if events & selectors.EVENT_WRITE else 0)


def _asyncio_mask(events: int) -> int:
    """An end or an error wakes who reads, and who writes."""
    return (selectors.EVENT_READ if events & ~WRITE else 0) | (selectors.EVENT_WRITE if events & ~READ else 0)
