"""Tells HTTP/2 from HTTP/1 by what a client says first."""

from __future__ import annotations

import asyncio
import contextlib

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
# The first line decides (RFC 9113 §3.4); what follows it is for the protocol to check.
LINE = PREFACE[: PREFACE.index(b"\r\n") + 2]
READ = 256 * 1024


class Greeting:
    """A connection whose client has not yet said what it speaks."""

    def __init__(self, *, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    def drain(self) -> None:
        """Nobody waits for its first word any more."""
        self._writer.transport.abort()

    async def first_bytes(self, *, seconds: float) -> tuple[bytes, bool]:
        """What the client says, and whether that begins HTTP/2. Nothing, when it ends, or says nothing in time.

        Raises:
            OSError: the connection is lost.
        """
        said = b""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while LINE.startswith(said) and said != LINE:
                    data = await self._reader.read(READ)
                    said += data
                    if not data:
                        break
        return said, bool(said) and (said.startswith(LINE) or LINE.startswith(said))
