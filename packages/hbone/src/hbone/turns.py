"""Whose turn it is to send on a connection, among streams that wait for the socket: first come, first served."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from hbone.link import Link
from hbone.tunnel import Connection

TURN = 64 * 1024  # bytes that one stream may send before the others have their turn


class Turns:
    """Of one connection. One sender at a time has one chunk of memory."""

    def __init__(self, *, link: Link, core: Connection, flush: Callable[[], object]) -> None:
        self._link, self._core, self._flush = link, core, flush
        self._turn = asyncio.Lock()
        self._has_room = asyncio.Event()
        self._is_over = False

    def open(self) -> None:
        """The socket has room again."""
        self._has_room.set()

    def close(self) -> None:
        """The connection is over: nobody waits for it."""
        self._is_over = True
        self._has_room.set()

    async def room(self) -> None:
        """Wait until the socket has room, in turn with those who send; what is to be flushed soon counts."""
        async with self._turn:
            if self._core.unsent > TURN:
                self._flush()
            await self._room()

    async def send(self, number: int, data: memoryview) -> int:
        """Send a turn's worth of the stream's data, when the socket has room; return how much that was."""
        async with self._turn:
            await self._room()
            count = min(self._core.window(number), len(data), TURN)
            self._core.send(number, data[:count])
            self._flush()
        # A fast peer and a full local end would have the loop to themselves else: neither of them ever waits.
        await asyncio.sleep(0)
        return count

    async def _room(self) -> None:
        while self._link.backlog and not self._is_over:
            self._has_room.clear()
            await self._has_room.wait()
