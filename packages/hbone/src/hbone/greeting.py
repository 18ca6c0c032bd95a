"""Tells HTTP/2 from HTTP/1 by what a client says first."""

from __future__ import annotations

import asyncio
import contextlib

from hbone.link import Link

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
# The first line decides (RFC 9113 §3.4); what follows it is for the protocol to check.
LINE = PREFACE[: PREFACE.index(b"\r\n") + 2]


class Greeting:
    """A connection whose client has not yet said what it speaks."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._said = b""
        self._is_over = asyncio.Event()
        self._reason = ""

    def drain(self) -> None:
        """Nobody waits for its first word any more; one that has come is served."""
        if not self._is_over.is_set():
            self._link.abort()

    async def first_bytes(self, *, seconds: float) -> tuple[bytes, bool]:
        """What the client says, and whether that begins HTTP/2. Nothing, when it ends, or says nothing in time.

        Raises:
            OSError: the connection is lost.
        """
        self._link.start(received=self._received, drained=lambda: None, lost=self._lost)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._is_over.wait()
        self._link.stop()
        if self._reason:
            raise ConnectionResetError(self._reason)
        said = self._said
        return said, bool(said) and (said.startswith(LINE) or LINE.startswith(said))

    def _received(self, data: memoryview) -> None:
        self._said += data
        if not LINE.startswith(self._said) or self._said == LINE:
            # The rest is for who speaks that protocol.
            self._link.stop()
            self._is_over.set()

    def _lost(self, reason: str) -> None:
        self._reason = reason
        self._is_over.set()
