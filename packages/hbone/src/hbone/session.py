"""One HTTP/2 connection: feeds the core, gives each stream its events, and bounds what a peer may cost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import hpack  # noqa: F401 - not in the middle of a connection, where the core asks for it

from hbone import events
from hbone.conduct import Conduct
from hbone.delivery import when_delivered
from hbone.flow import Flow
from hbone.frames import HEADER_LENGTH
from hbone.link import Link
from hbone.party import Party, Sender
from hbone.passage import Passage
from hbone.stream import ENDED_NOW, Stream, StreamBroken
from hbone.tunnel import CANCEL, ENHANCE_YOUR_CALM, MAX_STREAMS, NO_ERROR, REFUSED_STREAM, Connection
from hbone.turns import TURN, Turns

# Answers to PING and SETTINGS that a peer leaves unread; data is bounded elsewhere, so more means ill will.
MAX_BACKLOG = 1024 * 1024
GOODBYE = 1.0  # seconds for the last bytes to leave a connection that is closed
LAST_BYTES = 10.0  # the same, when the last stream of a drained connection has just ended
MAX_SERVED = 2**29  # requests of one connection: the numbers of streams come to an end (RFC 9113 §5.1.1)


class Session:
    """The connection: its owner runs ``run()``, and closes it."""

    def __init__(
        self,
        *,
        link: Link,
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
        self.link = link
        self.poller = link.poller
        self.turn = TURN
        self.passage = Passage(link=link, core=core, taken=self._take)
        self.streams: dict[int, Party] = {}
        self.served = 0  # requests that were not tunnels
        self.is_over = False
        self.fault = ""  # what the peer did wrong, once it has
        self.last_sender: Sender | None = None
        self.small_turns = 0  # while it is not 0, somebody has sent little not long ago
        self._first, self._hello, self._last_bytes, self._max_backlog = first, hello, last_bytes, max_backlog
        self._opened: Callable[[events.StreamOpened], Party] | None = None
        self._limit_changed: Callable[[], object] | None = None
        self._waiting: dict[Sender, None] = {}  # in order, for the socket to have room
        self.turns = Turns(link=link, core=core, flush=self.flush)
        self._reason = "the connection was closed"
        self._deadline: asyncio.TimerHandle | None = None
        self._is_greeted = self._is_flush_due = self._is_retired = False
        self._loop = loop = asyncio.get_running_loop()
        self._done: asyncio.Future[None] = loop.create_future()
        self._conduct = Conduct(now=loop.time())

    def on_stream(self, opened: Callable[[events.StreamOpened], Party]) -> None:
        """Have ``opened`` called for each stream that the client opens (server side): it says who has it."""
        self._opened = opened

    def on_room(self, changed: Callable[[], object]) -> None:
        """Have ``changed`` called when there may be room for one more stream (client side)."""
        self._limit_changed = changed

    @property
    def has_room(self) -> bool:
        """Whether one more stream may be opened here."""
        is_closing = self.is_over or self._is_retired or self.core.is_draining
        return not is_closing and len(self.streams) < self.core.limit and self.served < MAX_SERVED

    def ask(self, block: bytes, party: Party) -> Flow:
        """Ask for a tunnel by a header block that is made already; return the stream's account."""
        flow = self.core.ask(block)
        self.streams[flow.number] = party
        self.flush_soon()
        return flow

    def open(self, *, scheme: str, authority: str, path: str, headers: tuple[tuple[str, str], ...]) -> Stream:
        return self._stream(self.core.open(scheme=scheme, authority=authority, path=path, headers=headers))

    def request(self, fields: events.Fields, *, ends: bool) -> Stream:
        """Ask for anything: all fields, pseudo-headers first."""
        return self._stream(self.core.request(fields, ends=ends))

    def _stream(self, number: int) -> Stream:
        stream = self.streams[number] = Stream(session=self, number=number)
        self.flush_soon()
        return stream

    async def run(self) -> None:
        """Serve until the connection ends. Streams that are open then are broken."""
        try:
            self.flush()
            self.link.start(received=self._received, drained=self._drained, lost=self._lost)
            if not self.is_over:
                self._expire(self._hello)
            if self._first:
                self._received(memoryview(self._first))
                self._first = b""
            await self._done
        except asyncio.CancelledError:
            self._reason = ENDED_NOW
            raise
        finally:
            self._expire(None)
            self.is_over = True
            for party in list(self.streams.values()):
                party.broke(StreamBroken(self._reason))
            self.turns.close()

    def _received(self, data: memoryview) -> None:
        if self.is_over:
            return
        flow = self.core.receive_single(data)
        if flow is not None:  # the answer to a keystroke is this, and nothing else
            if (party := self.streams.get(flow.number)) is not None:
                party.received((data[HEADER_LENGTH:],))
            if self.core.out:
                self.flush()
            return
        self._take(self.core.receive(data))
        if self.link.conduit is not None and not self.is_over:
            self.passage.look()

    def _take(self, found: list[events.Event]) -> None:
        streams = self.streams
        for event in found:
            if isinstance(event, events.DataReceived):
                if (party := streams.get(event.stream)) is not None:
                    party.received(event.pieces)
            else:
                self._handle(event)
                if self.fault:
                    break
        if self.core.idle.count:
            self._judge(self._conduct.after_idle_frames(self.core.idle.take(), now=self._loop.time()))
        self.flush()
        if self.fault:
            self._finish()
        elif self.core.is_greeted and not self._is_greeted and not self.is_over:
            self._is_greeted = True
            self._expire(None)

    def _drained(self) -> None:
        """The socket has room again: for what was held back first, then for who waits, each in turn."""
        self.flush()
        self.turns.open()
        for sender in list(self._waiting):
            if self.link.backlog:
                break
            # One that leaves no room for the others waits behind them from here on.
            if self._waiting.pop(sender, self) is None:
                sender.take_turn()

    def _lost(self, reason: str) -> None:
        if reason and not self.fault:
            self._reason = reason
        self._finish()

    def _finish(self) -> None:
        self.is_over = True
        if not self._done.done():
            self._done.set_result(None)

    def _expire(self, seconds: float | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = None if seconds is None else self._loop.call_later(seconds, self._expired)

    def _expired(self) -> None:
        if not self.is_over:
            self._blame(f"the peer did not begin HTTP/2 within {self._hello:g} s")
        self._finish()

    def _judge(self, fault: str) -> None:
        if fault and not self.fault:
            self._blame(fault, code=ENHANCE_YOUR_CALM)

    def _blame(self, fault: str, *, code: int = NO_ERROR) -> None:
        """The peer's fault ends the connection."""
        self.fault = self._reason = fault
        self.core.close(code=code)
        self.is_over = True

    def flush(self) -> None:
        """Hand what the core wants to send to the socket."""
        data = self.core.data_to_send()
        if data:
            if self.link.backlog > self._max_backlog:
                self.fault = self._reason = "the peer does not read"
                self.link.abort()
            else:
                self.link.send(data)

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

    def wait(self, sender: Sender) -> None:
        """Give ``sender`` its turn when the socket has room."""
        self._waiting[sender] = None

    def wait_no_more(self, sender: Sender) -> None:
        self._waiting.pop(sender, None)

    def forget(self, number: int) -> None:
        """The stream's owner is done with it."""
        self.streams.pop(number, None)
        self.core.reset(number, CANCEL)
        self.flush_soon()
        self._finish_if_drained(seconds=self._last_bytes)
        if self._limit_changed is not None:
            self._limit_changed()

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
        try:
            async with asyncio.timeout(GOODBYE):
                if self.fault and not self.link.is_closed:
                    ended = asyncio.Event()
                    self.link.say_goodbye(ended.set)
                    await ended.wait()
                self.link.close()
                await self.link.closed.wait()
        except TimeoutError:
            pass
        finally:
            self.link.abort()

    def _finish_if_drained(self, *, seconds: float = GOODBYE) -> None:
        if self.core.is_draining and not self.streams and not self.is_over:
            self.is_over = True
            self.core.close()
            self.flush()
            # The last bytes may take a while, and be lost if we closed while the peer still says something; but one
            # that never reads them, or never ends, must not hold us.
            self._expire(seconds)
            self.link.say_goodbye(self._finish)
            when_delivered(self.link, self._finish)

    def _handle(self, event: events.Event) -> None:
        """All but payload; what every tunnel has comes first."""
        if isinstance(event, events.StreamEnded):
            if (party := self.streams.get(event.stream)) is not None:
                party.ended()
        elif isinstance(event, events.ResponseReceived):
            if (party := self.streams.get(event.stream)) is not None:
                party.opened(event.status, event.fields)
        elif isinstance(event, events.StreamOpened):
            self._begin(event)
        elif isinstance(event, events.WindowOpened):
            self._opens(event.stream)
        else:
            self._handle_rare(event)

    def _opens(self, stream: int) -> None:
        """A window that was closed is open, or with 0 that of them all."""
        for party in list(self.streams.values()) if not stream else [self.streams.get(stream)]:
            if party is not None:
                party.has_room()

    def _handle_rare(self, event: events.Event) -> None:
        match event:
            case events.DrainRequested(last=last):
                self._refuse_after(last)
            case events.ConnectionEnded(reason=reason):
                self.fault = self._reason = f"the connection broke the protocol: {reason}"
                self.is_over = True
            case events.LimitChanged():
                if self._limit_changed is not None:
                    self._limit_changed()
            case events.StreamReset(stream=stream, code=code):
                self._reset(stream, code)
            case events.InformationReceived() | events.TrailersReceived():
                if (party := self.streams.get(event.stream)) is None:
                    return
                if isinstance(event, events.TrailersReceived):
                    party.ends_with(event.fields)
                else:
                    party.informed(event.status, event.fields)

    def _reset(self, stream: int, code: int) -> None:
        if not self.core.is_client:
            self._judge(self._conduct.after_reset(now=self._loop.time()))
        if (party := self.streams.get(stream)) is not None:
            is_refused = code == REFUSED_STREAM
            reason = f"reset by the peer, error code {code}"
            party.broke(StreamBroken(reason, is_safe=is_refused, is_refused=is_refused))

    def _begin(self, event: events.StreamOpened) -> None:
        number = event.stream
        # Streams that were reset count until their tasks have ended: for HTTP/2 alone they are gone at once.
        if self._opened is None or len(self.streams) >= MAX_STREAMS:
            self.core.reset(number, REFUSED_STREAM)
            return
        self.streams[number] = self._opened(event)

    def _refuse_after(self, last: int) -> None:
        """The peer will not look at streams beyond ``last`` (RFC 9113 §6.8): they may be tried elsewhere."""
        for number, party in list(self.streams.items()) if self.core.is_client else ():
            if number > last:
                party.broke(StreamBroken("the peer takes no more streams", is_safe=True))
        self._finish_if_drained()
