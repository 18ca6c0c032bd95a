"""The one loop: waits for signals, deaths of children and sockets, and hands them on as events."""

from __future__ import annotations

import math
import os
import select
from collections.abc import Callable

from krun_launch.record import Record
from krun_launch.signals import Signals
from krun_launch.spawn import status_of


class Signalled(Record):
    """A signal came."""

    number: int


class Died(Record):
    """A process below us ended; status as a shell gives it, 128+N after signal N."""

    pid: int
    status: int


Event = Signalled | Died


class Loop:
    """``turn`` waits once. Sockets have a callback; signals and deaths are returned."""

    def __init__(self, signals: Signals) -> None:
        self._signals = signals
        self._poll = select.poll()
        self._poll.register(signals.fileno(), select.POLLIN)
        self._callbacks: dict[int, Callable[[], object]] = {}

    def watch(self, descriptor: int, events: int, callback: Callable[[], object]) -> None:
        """Call back when the descriptor is ready; again to change what is waited for."""
        self._poll.register(descriptor, events)
        self._callbacks[descriptor] = callback

    def unwatch(self, descriptor: int) -> None:
        if self._callbacks.pop(descriptor, None) is not None:
            self._poll.unregister(descriptor)

    def turn(self, timeout: float | None) -> list[Event]:
        """Wait for at most so many seconds (None: for ever) and return what happened, signals first."""
        # Rounded up, so that a wait for a deadline does not end just before it and spin.
        ready = self._poll.poll(None if timeout is None else math.ceil(max(0.0, timeout) * 1000))
        for descriptor, _ in ready:
            callback = self._callbacks.get(descriptor)
            if callback is not None:
                callback()
        return [*(Signalled(number=number) for number in self._signals.read()), *reap()]


def reap() -> list[Died]:
    """Collect every child that has ended, ours and adopted ones; does not wait."""
    dead: list[Died] = []
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return dead
        if pid == 0:
            return dead
        dead.append(Died(pid=pid, status=status_of(status)))
