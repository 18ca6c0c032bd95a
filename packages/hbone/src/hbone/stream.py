"""One stream of an HTTP/2 connection, a tunnel or a request: receives, sends and ends, with back pressure both ways."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from hbone.events import Fields
from hbone.tunnel import NO_ERROR

if TYPE_CHECKING:
    from hbone.session import Session

MAX_INFORMATIONS = 16  # that wait to be read; more are dropped
ENDED_NOW = "ended at once, by a signal"


class StreamBroken(Exception):
    """The stream is over before its end; ``is_safe`` says that the peer has surely done nothing with it, and
    ``is_refused`` that it had too many, as who asks may not have known yet how many it takes."""

    def __init__(self, reason: str, *, is_safe: bool = False, is_refused: bool = False) -> None:
        super().__init__(reason)
        self.is_safe = is_safe
        self.is_refused = is_refused


class StreamStopped(Exception):
    """The peer has sent all, and wants nothing more from us: no error, there is just nobody to send to."""


class Stream:
    """One stream of the connection."""

    def __init__(self, *, session: Session, number: int, method: str = "", path: str = "", fields: Fields = ()) -> None:
        self.number = number
        self.method = method
        self.path = path
        self.fields = fields  # of the request, as they came
        self.trailers: Fields = ()  # the peer's, when it has ended
        self.gone: Callable[[], None] | None = None  # called when the peer has given up the stream
        self.arrived = 0  # bytes of payload so far
        self.peer_ended = asyncio.Event()
        self._session = session
        # In one piece: a peer that sends byte by byte must not cost an object for each.
        self._pending = bytearray()
        self._status: int | None = None
        self._heads: deque[tuple[int, Fields]] = deque()
        self._broken: StreamBroken | None = None
        self.stopped = asyncio.Event()  # the peer has sent all, and takes nothing more
        self._readable = asyncio.Event()
        self._writable = asyncio.Event()

    async def status(self) -> int:
        """The server's answer. Raises StreamBroken."""
        while self._status is None:
            self.check()
            await self._wait(self._readable)
        return self._status

    async def head(self) -> tuple[int, Fields]:
        """The next head of the server: any number of informations, then the answer. Raises StreamBroken."""
        while not self._heads:
            self.check()
            if self.peer_ended.is_set():
                raise StreamBroken("ended without an answer")
            await self._wait(self._readable)
        return self._heads.popleft()

    @property
    def is_empty(self) -> bool:
        """Whether the peer has ended, and there is nothing left to receive."""
        return self.peer_ended.is_set() and not self._pending

    @property
    def is_given_up(self) -> bool:
        """Whether the peer wants no answer any more."""
        return self._broken is not None or self.stopped.is_set()

    def take(self) -> bytes:
        """What is there now, without waiting."""
        data = bytes(self._pending)
        self._pending.clear()
        return data

    async def receive(self) -> bytes:
        """The next bytes, ``b""`` at the end. Raises StreamBroken. The caller acknowledges what it has handed on."""
        while not self._pending:
            self.check()
            if self.peer_ended.is_set():
                return b""
            await self._wait(self._readable)
        return self.take()

    def acknowledge(self, count: int) -> None:
        self._session.core.acknowledge(self.number, count)
        self._session.flush()

    async def turn(self) -> None:
        """Wait until the socket has room: answers to a peer that pauses are held back, as its payload is."""
        await self._session.turns.room()

    async def send(self, data: bytes) -> None:
        """Send all of it, as the peer's window and the socket allow. Raises StreamBroken, StreamStopped."""
        rest = memoryview(data)
        while rest:
            self.check()
            if self.stopped.is_set():
                raise StreamStopped
            if not self._session.core.window(self.number):
                await self._wait(self._writable)
                continue
            sent = await self._session.turns.send(self.number, rest)
            rest = rest[sent:]

    def offer(self, data: bytes) -> int:
        """Send what the peer takes at once, and no more than a turn; return how much that was."""
        count = min(self._session.core.window(self.number), len(data), self._session.turn)
        self._session.core.send(self.number, data[:count])
        self._session.flush_soon()
        return count

    def respond(self, status: int, text: str = "", *, headers: tuple[tuple[str, str], ...] = ()) -> None:
        if self._broken is None:
            self._session.core.respond(self.number, status, text=text, headers=headers)
            self._session.flush()

    def inform(self, fields: Fields) -> None:
        """Say something before the answer; ``fields`` begin with the pseudo-header."""
        if self._broken is None:
            self._session.core.inform(self.number, fields)
            self._session.flush_soon()

    def answer(self, fields: Fields, data: bytes = b"", *, ends: bool) -> int:
        """Answer, with what there is of the payload; return how much of that went out with it."""
        if self._broken is not None:
            return 0
        core = self._session.core
        core.answer(self.number, fields, ends=ends and not data)
        count = min(core.window(self.number), len(data), self._session.turn)
        if count:
            core.send(self.number, data[:count])
            if ends and count == len(data):
                core.end(self.number)
        self._session.flush_soon()
        return count

    def end(self, trailers: Fields = ()) -> None:
        """Say that we have sent all."""
        self._session.core.end(self.number, trailers)
        self._session.flush_unless_due()

    def reset(self, code: int) -> None:
        self._session.core.reset(self.number, code)
        self._session.flush()
        self.broke(StreamBroken(f"reset by us, error code {code}"))

    @property
    def is_lost(self) -> bool:
        """Whether the whole connection is gone."""
        return self._session.is_over

    def retire(self) -> None:
        """The connection seems dead: it gets no new stream, and running ones go on."""
        self._session.retire()

    def release(self) -> None:
        """The owner is done with the stream."""
        self._session.forget(self.number)

    async def discard(self, *, seconds: float) -> None:
        """Read and drop what the peer still sends; after that time, tell it to stop (RFC 9113 §8.1)."""
        try:
            async with asyncio.timeout(seconds):
                while data := await self.receive():
                    self.acknowledge(len(data))
        except TimeoutError:
            self.reset(NO_ERROR)
        except StreamBroken:
            return

    def informed(self, status: int, fields: Fields) -> None:
        if len(self._heads) < MAX_INFORMATIONS:
            self._heads.append((status, fields))
            self._readable.set()

    def opened(self, status: int, fields: Fields = ()) -> None:
        self._status = status
        self._heads.append((status, fields))
        self._readable.set()

    def ends_with(self, trailers: Fields) -> None:
        self.trailers = trailers

    def received(self, pieces: Sequence[memoryview]) -> None:
        for piece in pieces:
            self.arrived += len(piece)
            self._pending += piece
        self._readable.set()

    def ended(self) -> None:
        self.peer_ended.set()
        self._readable.set()

    def has_room(self) -> None:
        self._writable.set()

    def broke(self, error: StreamBroken) -> None:
        """The stream is gone; after the peer's orderly end that only means that it wants no more of us."""
        if self.peer_ended.is_set():
            self.stopped.set()
        else:
            self._broken = error
        self._readable.set()
        self._writable.set()
        if self.gone is not None:
            self.gone()

    def check(self) -> None:
        """Raises StreamBroken when the stream is over before its end."""
        if self._broken is not None:
            broken = self._broken
            raise StreamBroken(str(broken), is_safe=broken.is_safe, is_refused=broken.is_refused)

    async def _wait(self, event: asyncio.Event) -> None:
        event.clear()
        await event.wait()
