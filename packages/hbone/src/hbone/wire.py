"""asyncio's streams, and a word when the peer ends or is lost while nobody reads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

Call = Callable[[], None] | None


class Wire(asyncio.StreamReaderProtocol):
    """The protocol under a reader and a writer."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        super().__init__(reader)
        self._when_lost: Call = None
        self._when_ended: Call = None
        self._is_lost = False
        self._is_ended = False

    def watch(self, *, lost: Call, ended: Call) -> None:
        """Have these called, from now on, when the connection is lost, and when the peer has sent all."""
        self._when_lost, self._when_ended = lost, ended
        if self._is_lost and lost:
            lost()
        elif self._is_ended and ended:
            ended()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._is_lost = True
        if self._when_lost:
            self._when_lost()

    def eof_received(self) -> bool | None:
        self._is_ended = True
        if self._when_ended:
            self._when_ended()
        return super().eof_received()
