"""How a daemon ends: the first SIGTERM drains, the second ends now."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any

from hbone.poller import new_loop


class Stop:
    """What has been asked of the daemon; ``draining`` first, then ``now``."""

    def __init__(self) -> None:
        self.draining = asyncio.Event()
        self.now = asyncio.Event()

    def listen(self) -> None:
        """Take SIGTERM and SIGINT from here on."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.ask)

    def ask(self) -> None:
        """Drain; asked again, end."""
        (self.now if self.draining.is_set() else self.draining).set()

    async def run(self, work: Coroutine[Any, Any, None]) -> None:
        """Run the daemon's work to its end, or cancel it when it must end now."""
        async with asyncio.TaskGroup() as group:
            task = group.create_task(work)
            watcher = group.create_task(self.now.wait())
            watcher.add_done_callback(lambda _: task.cancel())
            task.add_done_callback(lambda _: watcher.cancel())


def run(main: Coroutine[Any, Any, int]) -> int:
    """``asyncio.run`` with our poller; of an error that task groups have wrapped, the first is raised as itself."""
    try:
        with asyncio.Runner(loop_factory=new_loop) as runner:
            return runner.run(main)
    except BaseExceptionGroup as group:
        first: BaseException = group
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        raise first from None
