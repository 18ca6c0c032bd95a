"""stdin and stdout as the local end of a tunnel, read and written in threads.

Threads, because event loops take no regular files and macOS's no terminals, and because to make them non-blocking
would do so for every program that shares them.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import threading
from collections.abc import Callable
from queue import SimpleQueue

READ = 64 * 1024


class Stdio:
    """The process's own stdin and stdout."""

    def __init__(self) -> None:
        self._reader = _Worker()
        self._writer = _Worker()

    async def read(self) -> bytes:
        return await self._reader.run(_read)

    async def write(self, data: bytes) -> None:
        await self._writer.run(lambda: _write(data))

    def write_eof(self) -> None:
        """Nothing to do: the process ends when the peer has ended, and its stdout with it."""


class _Worker:
    """A thread that makes blocking calls, one after the other; it does not keep the process alive."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._calls: SimpleQueue[tuple[Callable[[], bytes], asyncio.Future[bytes]]] = SimpleQueue()
        threading.Thread(target=self._work, daemon=True).start()

    async def run(self, call: Callable[[], bytes]) -> bytes:
        future: asyncio.Future[bytes] = self._loop.create_future()
        self._calls.put((call, future))
        return await future

    def _work(self) -> None:
        while True:
            call, future = self._calls.get()
            try:
                done = _setter(future, call())
            except OSError as error:
                done = _setter(future, error)
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                self._loop.call_soon_threadsafe(done)


def _setter(future: asyncio.Future[bytes], outcome: bytes | OSError) -> Callable[[], None]:
    def done() -> None:
        if future.done():
            return
        if isinstance(outcome, OSError):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)

    return done


def _read() -> bytes:
    while True:
        try:
            return os.read(0, READ)
        except BlockingIOError:  # somebody else has made it non-blocking
            select.select([0], [], [])


def _write(data: bytes) -> bytes:
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(1, rest) :]
        except BlockingIOError:
            select.select([], [1], [])
    return b""
