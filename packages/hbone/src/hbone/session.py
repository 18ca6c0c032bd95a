"""One HTTP/2 connection on asyncio: feeds the core, and gives each stream a receive and a send with back pressure."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable

from hbone import events
from hbone.tunnel import CANCEL, NO_ERROR, REFUSED_STREAM, Connection

READ = 256 * 1024
TURN = 64 * 1024  # bytes that one stream may send before the others have their turn
# Answers to PING and SETTINGS that a peer leaves unread; data is bounded elsewhere, so more means ill will.
MAX_BACKLOG = 1024 * 1024
GOODBYE = 1.0  # seconds for the last bytes to leave a connection that is closed

ENDED_NOW = "ended at once, by a signal"


class StreamBroken(Exception):
    """The stream is over before its end; ``is_safe`` says that the peer has surely done nothing with it."""

    def __init__(self, reason: str, *, is_safe: bool = False) -> None:
        super().__init__(reason)
        self.is_safe = is_safe


class StreamStopped(Exception):
    """The peer has sent all, and wants nothing more from us: no error, there is just nobody to send to."""


class Stream:
    """One tunnel in the connection."""

    def __init__(self, *, session: Session, number: int, method: str = "", path: str = "") -> None:
        self.number = number
        self.method = method
        self.path = path
        self.arrived = 0  # bytes of payload so far
        self.peer_ended = asyncio.Event()
        self._session = session
        self._pending: deque[bytes] = deque()
        self._status: int | None = None
        self._broken: StreamBroken | None = None
        self._is_stopped = False
        self._readable = asyncio.Event()
        self._writable = asyncio.Event()

    async def status(self) -> int:
        """The server's answer. Raises StreamBroken."""
        while self._status is None:
            self._check()
            await self._wait(self._readable)
        return self._status

    async def receive(self) -> bytes:
        """The next bytes, ``b""`` at the end. Raises StreamBroken. The caller acknowledges what it has handed on."""
        while not self._pending:
            self._check()
            if self.peer_ended.is_set():
                return b""
            await self._wait(self._readable)
        return self._pending.popleft()

    def acknowledge(self, count: int) -> None:
        self._session.core.acknowledge(self.number, count)
        self._session.flush()

    async def send(self, data: bytes) -> None:
        """Send all of it, as the peer's window and the socket allow. Raises StreamBroken, StreamStopped."""
        rest = memoryview(data)
        while rest:
            self._check()
            if self._is_stopped:
                raise StreamStopped
            if not self._session.core.window(self.number):
                await self._wait(self._writable)
                continue
            sent = await self._session.send(self, rest)
            rest = rest[sent:]

    def respond(self, status: int, text: str = "", *, headers: tuple[tuple[str, str], ...] = ()) -> None:
        if self._broken is None:
            self._session.core.respond(self.number, status, text=text, headers=headers)
            self._session.flush()

    def end(self) -> None:
        """Say that we have sent all."""
        self._session.core.end(self.number)
        self._session.flush()

    def reset(self, code: int) -> None:
        self._session.core.reset(self.number, code)
        self._session.flush()

    @property
    def is_lost(self) -> bool:
        """Whether the whole connection is gone."""
        return self._session.is_over

    def release(self) -> None:
        """The owner is done with the stream."""
        self._session.forget(self)

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

    def opened(self, status: int) -> None:
        self._status = status
        self._readable.set()

    def received(self, data: bytes) -> None:
        self.arrived += len(data)
        self._pending.append(data)
        self._readable.set()

    def ended(self) -> None:
        self.peer_ended.set()
        self._readable.set()

    def has_room(self) -> None:
        self._writable.set()

    def broke(self, error: StreamBroken) -> None:
        """The stream is gone; after the peer's orderly end that only means that it wants no more of us."""
        if self.peer_ended.is_set():
            self._is_stopped = True
        else:
            self._broken = error
        self._readable.set()
        self._writable.set()

    def _check(self) -> None:
        if self._broken is not None:
            raise StreamBroken(str(self._broken), is_safe=self._broken.is_safe)

    async def _wait(self, event: asyncio.Event) -> None:
        event.clear()
        await event.wait()


class Session:
    """The connection: its owner runs ``run()``, and closes it."""

    def __init__(
        self,
        *,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        core: Connection,
        hello: float,
    ) -> None:
        """``hello`` is how many seconds the peer has until its first byte."""
        self.core = core
        self.streams: dict[int, Stream] = {}
        self.is_over = False
        self._reader = reader
        self._writer = writer
        self._hello = hello
        self._opened: Callable[[Stream], object] | None = None
        self._turn = asyncio.Lock()  # one sender at a time: first come, first served, and one chunk of memory
        self._reason = "the connection was closed"

    def on_stream(self, opened: Callable[[Stream], object]) -> None:
        """Have ``opened`` called for each stream that the client opens (server side)."""
        self._opened = opened

    @property
    def has_room(self) -> bool:
        """Whether one more stream may be opened here."""
        return not (self.is_over or self.core.is_draining) and len(self.streams) < self.core.limit

    def open(self, *, scheme: str, authority: str, path: str, headers: tuple[tuple[str, str], ...]) -> Stream:
        number = self.core.open(scheme=scheme, authority=authority, path=path, headers=headers)
        stream = self.streams[number] = Stream(session=self, number=number)
        self.flush()
        return stream

    async def run(self) -> None:
        """Read until the connection ends. Streams that are open then are broken."""
        try:
            self.flush()
            async with asyncio.timeout(self._hello):
                data = await self._reader.read(READ)
            while data and not self.is_over:
                for event in self.core.receive(data):
                    self._handle(event)
                self.flush()
                data = await self._reader.read(READ)
        except asyncio.CancelledError:
            self._reason = ENDED_NOW
            raise
        except TimeoutError:
            self._reason = f"the peer said nothing within {self._hello:g} s"
        except OSError as error:
            self._reason = f"the connection was lost: {error}"
        finally:
            self.is_over = True
            for stream in self.streams.values():
                stream.broke(StreamBroken(self._reason))

    def flush(self) -> None:
        """Hand what the core wants to send to the socket."""
        data = self.core.data_to_send()
        if data and not self._writer.is_closing():
            if self._writer.transport.get_write_buffer_size() > MAX_BACKLOG:
                self._reason = "the peer does not read"
                self._writer.transport.abort()
            else:
                self._writer.write(data)

    async def send(self, stream: Stream, data: memoryview) -> int:
        """Send a turn's worth of the data, when the socket has room; return how much that was."""
        async with self._turn:
            with contextlib.suppress(OSError):  # run() sees the same, and breaks all streams
                await self._writer.drain()
            count = min(self.core.window(stream.number), len(data), TURN)
            self.core.send(stream.number, bytes(data[:count]))
            self.flush()
            return count

    def forget(self, stream: Stream) -> None:
        """The stream's owner is done with it."""
        self.streams.pop(stream.number, None)
        self.core.reset(stream.number, CANCEL)
        self.flush()
        self._finish_if_drained()

    def drain(self) -> None:
        """Take no new stream, and close when the last one is done."""
        self.core.drain()
        self.flush()
        self._finish_if_drained()

    async def close(self) -> None:
        """Say goodbye and close, within GOODBYE."""
        self.is_over = True
        self.core.close()
        self.flush()
        self._writer.close()
        try:
            async with asyncio.timeout(GOODBYE):
                await self._writer.wait_closed()
        except (OSError, TimeoutError):
            self._writer.transport.abort()

    def _finish_if_drained(self) -> None:
        if self.core.is_draining and not self.streams and not self.is_over:
            self.is_over = True
            self.core.close()
            self.flush()
            self._writer.close()  # run() sees the end

    def _handle(self, event: events.Event) -> None:
        match event:
            case events.StreamOpened(stream=number, method=method, path=path):
                stream = self.streams[number] = Stream(session=self, number=number, method=method, path=path)
                if self._opened is not None:
                    self._opened(stream)
            case events.WindowOpened(stream=0):
                for stream in self.streams.values():
                    stream.has_room()
            case events.DrainRequested(last=last):
                self._refuse_after(last)
            case events.ConnectionEnded(reason=reason):
                self._reason = f"the connection broke the protocol: {reason}"
                self.is_over = True
            case events.LimitChanged():
                pass
            case _:
                self._handle_stream(event)

    def _handle_stream(self, event: events.Event) -> None:
        stream = self.streams.get(getattr(event, "stream", 0))
        if stream is None:
            return
        match event:
            case events.ResponseReceived(status=status):
                stream.opened(status)
            case events.DataReceived(data=data):
                stream.received(data)
            case events.StreamEnded():
                stream.ended()
            case events.WindowOpened():
                stream.has_room()
            case events.StreamReset(code=code):
                is_safe = code == REFUSED_STREAM
                stream.broke(StreamBroken(f"reset by the peer, error code {code}", is_safe=is_safe))

    def _refuse_after(self, last: int) -> None:
        """The peer will not look at streams beyond ``last`` (RFC 9113 §6.8): they may be tried elsewhere."""
        for number, stream in self.streams.items():
            if self.core.is_client and number > last:
                stream.broke(StreamBroken("the peer takes no more streams", is_safe=True))
        self._finish_if_drained()
