"""The workers of a gate: starts them, tells them what they must know, and replaces those that die, or hang.

They share one listening socket, so a worker that dies takes no connection with it but its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import mmap
import os
import socket
from collections.abc import Callable, Iterable

from hbone import shares
from hbone.doorway import BACKLOG
from hbone.restarts import ALL_DEAD, GOODBYE, LOOKS, TIMEOUT, Pulse, Restarts
from hbone.stop import Stop
from hgate import errors, feed
from hgate.child import Child, LogStyle

log = logging.getLogger(__name__)

Heard = Callable[[feed.Message, int], None]
Snapshot = Callable[[], Iterable[feed.Message]]


class Workers:
    """The workers; ``run`` returns when all are drained.

    ``heard`` gets what a worker says, with its number; ``snapshot`` gives all that a new one must know, but for the
    settings.
    """

    def __init__(
        self,
        *,
        listener: socket.socket,
        count: int,
        settings: feed.Settings,
        log_style: LogStyle,
        heard: Heard,
        snapshot: Snapshot,
        timeout: float = TIMEOUT,
        all_dead: float = ALL_DEAD,
    ) -> None:
        """``timeout``: seconds of silence after which a worker hangs."""
        self._listener = listener
        self._count = count
        self._settings = settings
        self._log_style = log_style
        self._heard = heard
        self._snapshot = snapshot
        self._timeout = timeout
        self._all_dead = all_dead
        self._memory = os.memfd_create("hgate-workers")
        os.truncate(self._memory, shares.size(count))
        self._mapped = mmap.mmap(self._memory, 0)
        self._running: dict[int, Child] = {}
        self._pulses: dict[int, Pulse] = {}
        self._changed = asyncio.Event()
        self._is_stopping = False

    @property
    def ready(self) -> int:
        """Workers that accept."""
        return sum(child.is_ready for child in self._running.values())

    @property
    def pids(self) -> list[int]:
        return [child.pid for child in self._running.values()]

    def tell(self, message: feed.Message) -> None:
        """Tell all that run; one that is started later has it from the snapshot."""
        for child in self._running.values():
            child.wire.tell(message)

    async def until_ready(self) -> None:
        """Wait until one accepts."""
        while not self.ready:
            await self._change()

    async def run(self, stop: Stop) -> None:
        """Keep the workers going until they are told to stop, and have drained. Closes the listener.

        Raises:
            Unreachable: none could be kept running for a long time.
        """
        self._listener.listen(BACKLOG)
        try:
            async with asyncio.TaskGroup() as group:
                keepers = [group.create_task(self._keep(number)) for number in range(self._count)]
                watching = [group.create_task(watch) for watch in (self._watch(), self._feel(), self._obey(stop))]
                await asyncio.wait(keepers)
                for task in watching:
                    task.cancel()
        finally:
            await self._end_all()

    async def _keep(self, number: int) -> None:
        """Keep one worker running: start it, wait for its end, start the next."""
        loop = asyncio.get_running_loop()
        restarts = Restarts()
        while not self._is_stopping:
            started = loop.time()
            child = Child(listener=self._listener, memory=self._memory, number=number, log_style=self._log_style)
            status = await self._attend(child, number)
            if self._is_stopping:
                return
            fields = {"pid": child.pid, "status": status, "count": self._share(number).count}
            log.error("a worker has ended, another is started", extra={"fields": fields})
            self._share(number).has_gone()
            # Who waits to be accepted may have been this one's: it had been woken, and has not come to it.
            self.tell(feed.Look())
            await self._pause(restarts.pause(lived=loop.time() - started))

    async def _attend(self, child: Child, number: int) -> int:
        """Feed a worker, and hear it, until it ends. Cancelled, it still runs: ``_end_all`` has the last word."""
        self._running[number] = child
        # To start takes as long as the machine is busy.
        now = asyncio.get_running_loop().time()
        self._pulses[number] = Pulse(timeout=max(self._timeout, TIMEOUT), now=now)
        child.wire.open(
            heard=lambda message: self._hear(message, number, child),
            gone=lambda: None,  # its end says so, too
        )
        child.wire.tell(self._settings, *self._snapshot())
        status = await child.ended()
        del self._running[number]
        child.close()
        self._has_changed()
        return status

    def _hear(self, message: feed.Message, number: int, child: Child) -> None:
        now = asyncio.get_running_loop().time()
        self._pulses[number].feel(now=now)
        if isinstance(message, feed.Ready):
            self._pulses[number] = Pulse(timeout=self._timeout, now=now)
            child.is_ready = True
            self._has_changed()
        self._heard(message, number)

    async def _obey(self, stop: Stop) -> None:
        await stop.draining.wait()
        self._is_stopping = True
        self._has_changed()
        # No port without somebody who accepts: workers close theirs when they hear it.
        self._listener.close()
        self.tell(feed.Drain())
        await stop.now.wait()
        self.tell(feed.Drain(now=True))

    async def _watch(self) -> None:
        """Give up when nobody has been ready for a long time."""
        while True:
            try:
                async with asyncio.timeout(None if self.ready or self._is_stopping else self._all_dead):
                    await self._change()
            except TimeoutError as error:
                raise errors.Unreachable(
                    f"no worker could be kept running for {self._all_dead:g} s", hint="see what they have said above"
                ) from error

    async def _feel(self) -> None:
        """End those that hang: nobody else would, and who asks is led to them, too."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self._timeout / LOOKS)
            for number, child in self._running.items():
                if self._pulses[number].is_gone(now=loop.time()):
                    fields = {"pid": child.pid, "count": self._share(number).count}
                    log.error("a worker hangs: it is ended, and its connections with it", extra={"fields": fields})
                    child.kill()

    def _share(self, number: int) -> shares.Shares:
        return shares.Shares(self._mapped, number=number)

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not self._is_stopping:
                    await self._change()

    async def _end_all(self) -> None:
        """End at once what still runs."""
        self._is_stopping = True
        self.tell(feed.Drain(now=True))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GOODBYE):
                for child in self._running.values():
                    await child.ended()
        for child in self._running.values():
            child.close()
        self._running.clear()
        self._listener.close()
        os.close(self._memory)

    def _has_changed(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def _change(self) -> None:
        await self._changed.wait()
