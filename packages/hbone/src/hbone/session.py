"""One HTTP/2 connection on asyncio: feeds the core, gives each stream its events, and bounds what a peer may cost."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from hbone import events
from hbone.allowance import Allowance
from hbone.stream import ENDED_NOW, Stream, StreamBroken
from hbone.tunnel import CANCEL, ENHANCE_YOUR_CALM, MAX_STREAMS, NO_ERROR, REFUSED_STREAM, Connection

READ = 256 * 1024
TURN = 64 * 1024  # bytes that one stream may send before the others have their turn
# Answers to PING and SETTINGS that a peer leaves unread; data is bounded elsewhere, so more means ill will.
MAX_BACKLOG = 1024 * 1024
GOODBYE = 1.0  # seconds for the last bytes to leave a connection that is closed
LAST_BYTES = 10.0  # the same, when the last stream of a drained connection has just ended
# Streams that the client opens and resets (CVE-2023-44487): nghttp2's defaults. Each costs us a dial, it nothing.
RESETS, RESETS_PER_SECOND = 1000, 33
# Frames that carry nothing (CVE-2019-9512, -9515, -9518): far more than any peer needs, and too few to keep us busy.
IDLE_FRAMES, IDLE_FRAMES_PER_SECOND = 10_000, 500
MAX_SERVED = 2**29  # requests of one connection: the numbers of streams come to an end (RFC 9113 §5.1.1)


class Session:
    """The connection: its owner runs ``run()``, and closes it."""

    def __init__(
        self,
        *,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        core: Connection,
        hello: float,
        last_bytes: float = LAST_BYTES,
        max_backlog: int = MAX_BACKLOG,
        first: bytes = b"",
    ) -> None:
        """Seconds: ``hello`` until the peer has said what HTTP/2 begins with, ``last_bytes`` until it has read all.
        Bytes: ``max_backlog`` of what is sent without asking, and not read.

        ``first`` is what has been read of the connection already.
        """
        self.core = core
        self.turn = TURN
        self.streams: dict[int, Stream] = {}
        self.served = 0  # requests that were not tunnels
        self.is_over = False
        self.fault = ""  # what the peer did wrong, once it has
        self._reader = reader
        self._writer = writer
        self._first = first
        self._hello = hello
        self._last_bytes = last_bytes
        self._max_backlog = max_backlog
        self._opened: Callable[[Stream], object] | None = None
        self._turn = asyncio.Lock()  # one sender at a time: first come, first served, and one chunk of memory
        self._reason = "the connection was closed"
        self._deadline = asyncio.timeout(None)
        self._is_running = False
        self._is_flush_due = False
        self._is_retired = False
        self._loop = loop = asyncio.get_running_loop()
        self._resets = Allowance(burst=RESETS, per_second=RESETS_PER_SECOND, now=loop.time())
        self._idle_frames = Allowance(burst=IDLE_FRAMES, per_second=IDLE_FRAMES_PER_SECOND, now=loop.time())

    def on_stream(self, opened: Callable[[Stream], object]) -> None:
        """Have ``opened`` called for each stream that the client opens (server side)."""
        self._opened = opened

    @property
    def has_room(self) -> bool:
        """Whether one more stream may be opened here."""
        is_closing = self.is_over or self._is_retired or self.core.is_draining
        return not is_closing and len(self.streams) < self.core.limit and self.served < MAX_SERVED

    def open(self, *, scheme: str, authority: str, path: str, headers: tuple[tuple[str, str], ...]) -> Stream:
        number = self.core.open(scheme=scheme, authority=authority, path=path, headers=headers)
        stream = self.streams[number] = Stream(session=self, number=number)
        self.flush()
        return stream

    def request(self, fields: events.Fields, *, ends: bool) -> Stream:
        """Ask for anything: all fields, pseudo-headers first."""
        number = self.core.request(fields, ends=ends)
        stream = self.streams[number] = Stream(session=self, number=number)
        self.flush_soon()
        return stream

    async def run(self) -> None:
        """Read until the connection ends. Streams that are open then are broken."""
        try:
            self.flush()
            async with self._deadline:
                self._is_running = True
                if not self.is_over:
                    self._expire(self._hello)
                await self._read()
        except asyncio.CancelledError:
            self._reason = ENDED_NOW
            raise
        except TimeoutError:
            if not self.is_over:
                self._blame(f"the peer did not begin HTTP/2 within {self._hello:g} s")
        except OSError as error:
            self._reason = f"the connection was lost: {error}"
        finally:
            self.is_over = True
            for stream in self.streams.values():
                stream.broke(StreamBroken(self._reason))

    async def _read(self) -> None:
        is_greeted = False
        while data := self._first or await self._reader.read(READ):
            self._first = b""
            for event in self.core.receive(data):
                self._handle(event)
                if self.fault:
                    break
            self._count_idle_frames()
            self.flush()
            if self.fault:
                return
            if self.core.is_greeted and not is_greeted and not self.is_over:
                is_greeted = True
                self._expire(None)

    def _expire(self, seconds: float | None) -> None:
        if not self._deadline.expired():
            now = asyncio.get_running_loop().time()
            self._deadline.reschedule(None if seconds is None else now + seconds)

    def _blame(self, fault: str, *, code: int = NO_ERROR) -> None:
        """The peer's fault ends the connection."""
        self.fault = self._reason = fault
        self.core.close(code=code)
        self.is_over = True

    def flush(self) -> None:
        """Hand what the core wants to send to the socket."""
        data = self.core.data_to_send()
        if data and not self._writer.is_closing():
            if self._writer.transport.get_write_buffer_size() > self._max_backlog:
                self.fault = self._reason = "the peer does not read"
                self.is_over = True
                self._writer.transport.abort()
            else:
                self._writer.write(data)

    def flush_soon(self) -> None:
        """Flush when all that can be done now is done: heads and ends of many requests leave in one piece."""
        if not self._is_flush_due:
            self._is_flush_due = True
            self._loop.call_soon(self._flush_due)

    def flush_unless_due(self) -> None:
        """Flush now, but when it is done soon anyhow."""
        if not self._is_flush_due:
            self.flush()

    def _flush_due(self) -> None:
        self._is_flush_due = False
        self.flush()

    async def room(self) -> None:
        """Wait until the socket has room, in turn with those who send; what is to be flushed soon counts."""
        async with self._turn:
            if self.core.unsent > TURN:
                self.flush()
            with contextlib.suppress(OSError):  # run() sees the same, and breaks all streams
                await self._writer.drain()

    async def send(self, stream: Stream, data: memoryview) -> int:
        """Send a turn's worth of the data, when the socket has room; return how much that was."""
        async with self._turn:
            with contextlib.suppress(OSError):  # run() sees the same, and breaks all streams
                await self._writer.drain()
            count = min(self.core.window(stream.number), len(data), TURN)
            self.core.send(stream.number, bytes(data[:count]))
            self.flush()
        # A fast peer and a full local end would have the loop to themselves else: neither of them ever waits.
        await asyncio.sleep(0)
        return count

    def forget(self, stream: Stream) -> None:
        """The stream's owner is done with it."""
        self.streams.pop(stream.number, None)
        self.core.reset(stream.number, CANCEL)
        self.flush()
        self._finish_if_drained()

    def retire(self) -> None:
        """Open no new stream here."""
        self._is_retired = True

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
            # The last bytes may take a while; but a peer that never reads them must not hold us.
            if self._is_running:
                self._expire(self._last_bytes)

    def _handle(self, event: events.Event) -> None:
        match event:
            case events.StreamOpened():
                self._begin(event)
            case events.WindowOpened(stream=0):
                for stream in self.streams.values():
                    stream.has_room()
            case events.DrainRequested(last=last):
                self._refuse_after(last)
            case events.ConnectionEnded(reason=reason):
                self.fault = self._reason = f"the connection broke the protocol: {reason}"
                self.is_over = True
            case events.LimitChanged():
                pass
            case _:
                self._handle_stream(event)

    def _begin(self, event: events.StreamOpened) -> None:
        number = event.stream
        # Streams that were reset count until their tasks have ended: for HTTP/2 alone they are gone at once.
        if self._opened is None or len(self.streams) >= MAX_STREAMS:
            self.core.reset(number, REFUSED_STREAM)
            return
        stream = self.streams[number] = Stream(
            session=self, number=number, method=event.method, path=event.path, fields=event.fields
        )
        self._opened(stream)

    def _handle_stream(self, event: events.Event) -> None:
        if isinstance(event, events.StreamReset) and not self.core.is_client:
            self._count_reset()
        stream = self.streams.get(getattr(event, "stream", 0))
        if stream is None:
            return
        match event:
            case events.ResponseReceived(status=status, fields=fields):
                stream.opened(status, fields)
            case events.InformationReceived(status=status, fields=fields):
                stream.informed(status, fields)
            case events.TrailersReceived(fields=fields):
                stream.ends_with(fields)
            case events.DataReceived(data=data):
                stream.received(data)
            case events.StreamEnded():
                stream.ended()
            case events.WindowOpened():
                stream.has_room()
            case events.StreamReset(code=code):
                is_safe = code == REFUSED_STREAM
                stream.broke(StreamBroken(f"reset by the peer, error code {code}", is_safe=is_safe))

    def _count_reset(self) -> None:
        if not self._resets.spend(now=asyncio.get_running_loop().time()):
            self._blame("the peer opens and resets streams too fast", code=ENHANCE_YOUR_CALM)

    def _count_idle_frames(self) -> None:
        count = self.core.idle.take()
        if count and not self.fault and not self._idle_frames.spend(now=self._loop.time(), count=count):
            self._blame("the peer floods us with frames that carry nothing", code=ENHANCE_YOUR_CALM)

    def _refuse_after(self, last: int) -> None:
        """The peer will not look at streams beyond ``last`` (RFC 9113 §6.8): they may be tried elsewhere."""
        for number, stream in self.streams.items():
            if self.core.is_client and number > last:
                stream.broke(StreamBroken("the peer takes no more streams", is_safe=True))
        self._finish_if_drained()
