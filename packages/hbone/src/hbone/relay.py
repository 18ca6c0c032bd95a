"""Relays bytes between a local end and a stream: back pressure and half-close in both directions.

An end of data in one direction ends that direction only. What is broken on one side is broken, not ended, on the
other: a reader must be able to tell a whole answer from half of one.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from hbone.stream import ENDED_NOW, Stream, StreamBroken, StreamStopped
from hbone.tunnel import CANCEL, CONNECT_ERROR

ENDED = "ended"
LOCAL_GONE = "local end is gone"
# How long the peer must be quiet after our last byte before we end the stream; see ``_linger``.
QUIET = 0.25


class Local(Protocol):
    """The end that is not HTTP/2: a TCP socket, or stdin and stdout."""

    async def read(self) -> bytes:
        """The next bytes, ``b""`` at the end. Raises OSError."""

    async def write(self, data: bytes) -> None:
        """Write all of it. Raises OSError."""

    def write_eof(self) -> None:
        """Say that nothing more will be written."""


class Relay:
    """One tunnel while it runs; ``reason`` says at the end how it ended."""

    def __init__(
        self, *, stream: Stream, local: Local, first: bytes = b"", patience: float = 0.0, ends_with_peer: bool = False
    ) -> None:
        """Relay ``first`` before what the local end says from now on.

        With ``patience``, a server's: seconds that a request's rest is read, and dropped when its target is gone.
        With ``ends_with_peer`` the relay is over when the peer has ended, whatever the local end still has to say.
        """
        self.to_local = 0
        self.from_local = 0
        self.reason = ENDED
        self._stream = stream
        self._local = local
        self.local_error: OSError | None = None
        self._first = first
        self._patience = patience
        self._ends_with_peer = ends_with_peer

    @property
    def is_orderly(self) -> bool:
        return self.reason == ENDED

    async def run(self) -> None:
        """Relay until both directions have ended, or the tunnel is broken."""
        try:
            await self._both()
        except asyncio.CancelledError:
            self.reason = ENDED_NOW
            raise
        self._stream.end()

    async def _both(self) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                outward = group.create_task(self._outward())
                await self._inward()
                if self._ends_with_peer:
                    outward.cancel()
                else:
                    # A silent local end would hide that the peer is gone: nothing is sent, so nobody would see it.
                    stopped = group.create_task(self._stream.stopped.wait())
                    stopped.add_done_callback(lambda _: outward.cancel())
                    outward.add_done_callback(lambda _: stopped.cancel())
        except* (StreamBroken, _LocalBroken) as broken:
            self.reason = str(broken.exceptions[0])

    async def _outward(self) -> None:
        """From the local end to the peer."""
        try:
            data = self._first or await self._local.read()
            while data:
                await self._stream.send(data)
                self.from_local += len(data)
                data = await self._local.read()
        except StreamStopped:
            return
        except OSError as error:
            raise self._local_broke(error, code=CONNECT_ERROR) from error
        await self._linger()
        self._stream.end()

    async def _inward(self) -> None:
        """From the peer to the local end."""
        while data := await self._stream.receive():
            try:
                await self._local.write(data)
            except OSError as error:
                await self._drop(len(data), error)
                return
            self.to_local += len(data)
            self._stream.acknowledge(len(data))
        self._local.write_eof()

    async def _drop(self, count: int, error: OSError) -> None:
        """The local end takes no more. A server reads the request's rest all the same, a client gives up."""
        if not self._patience:
            raise self._local_broke(error, code=CANCEL) from error
        self._stream.acknowledge(count)
        await self._stream.discard(seconds=self._patience)

    def _local_broke(self, error: OSError, *, code: int) -> _LocalBroken:
        self.local_error = error
        self._stream.reset(code)
        return _LocalBroken(f"{LOCAL_GONE}: {error.strerror or error}")

    async def _linger(self) -> None:
        """Hold back the end of a response while the request still arrives.

        The front of a serverless platform takes a response that ends before its request for an abort, and what it
        still holds is lost in both directions: with a quiet client too, the front needs the time to hand on the
        answer. But a client may wait for our end before it ends: so no longer than it is busy.
        """
        if not self._patience:
            return
        try:
            async with asyncio.timeout(self._patience):
                while not self._stream.peer_ended.is_set():
                    before = self._stream.arrived
                    if not await self._peer_ends(QUIET) and self._stream.arrived == before:
                        return
        except TimeoutError:
            return

    async def _peer_ends(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._stream.peer_ended.wait()
        except TimeoutError:
            return False
        return True


class _LocalBroken(Exception):
    """The local end failed, and the peer has been told."""
