"""A connection to a peer as bytes: what was read, and what it has not taken yet. No transport of asyncio's between."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from time import thread_time

from hbone import sockets
from hbone.backlog import Backlog, Piece
from hbone.buffers import INCOMING
from hbone.conduit import Conduit
from hbone.pace import LEAST, Pace
from hbone.poller import READ, WRITE, Poller


class Link:
    """The connected socket. It calls back from within the loop, and never from within ``send``."""

    def __init__(self, connected: socket.socket, *, poller: Poller) -> None:
        sockets.tune(connected)
        connected.setblocking(False)
        self.poller = poller
        self.is_closed = False
        self.closed = asyncio.Event()
        self.socket = connected
        self._file = connected.fileno()
        self._mask = 0
        self._is_started = False
        self._is_closing = False
        self._is_deaf = False  # the peer takes nothing more
        self._backlog = Backlog(poller.buffers.blocks)
        self.conduit = poller.buffers.conduit  # for payload that is not read; None: all is
        self.passage: Callable[[], object] | None = None  # called instead of reading
        self.next = INCOMING  # bytes of the next read, at most
        self.pace = Pace()
        self._received: Callable[[memoryview], object] = _nothing
        self._drained: Callable[[], object] = _nothing
        self._lost: Callable[[str], object] = _nothing

    def start(
        self,
        *,
        received: Callable[[memoryview], object],
        drained: Callable[[], object],
        lost: Callable[[str], object],
    ) -> None:
        """Have these called: with what was read, which is valid only then; when ``backlog`` is empty again; and once,
        when nothing more comes, with the reason, if it is no orderly end."""
        self._received, self._drained, self._lost = received, drained, lost
        self.go_on()

    def stop(self) -> None:
        """Read no more, until it is started again."""
        self._is_started = False
        self._watch()

    def go_on(self) -> None:
        """Read again."""
        self._is_started = True
        self._watch()

    def detach(self) -> socket.socket:
        """The socket, which is the caller's from here on."""
        self.is_closed = True
        self._set(0)
        self.closed.set()
        return self.socket

    @property
    def backlog(self) -> int:
        """Bytes that wait for the peer to take them."""
        return self._backlog.size

    def send(self, *pieces: Piece) -> bool:
        """Send all of it, now or when there is room; whether it was now."""
        if self.is_closed or self._is_closing or self._is_deaf:
            return True
        if self._backlog.size:
            self._backlog.add(pieces)
            return False
        try:
            if len(pieces) == 1:
                sent = self.socket.send(pieces[0])
                if sent == len(pieces[0]):
                    return True
            else:
                sent = self.socket.sendmsg(pieces)
        except BlockingIOError:
            sent = 0
        except OSError:
            # It may have said something before: that is read to its end.
            self._is_deaf = True
            return True
        self._backlog.add(pieces, sent=sent)
        if self._backlog:
            self._watch()
            return False
        return True

    def send_conduit(self, head: bytes, conduit: Conduit, count: int) -> bool:
        """The same for these, and so many bytes that are in the conduit; when nothing waits before them."""
        if self.is_closed or self._is_closing or self._is_deaf:
            conduit.rest(count)
            return True
        sent = given = 0
        try:
            with contextlib.suppress(BlockingIOError):
                sent = self.socket.send(head, socket.MSG_MORE)
        except OSError:
            conduit.rest(count)
            self._is_deaf = True
            return True
        if sent == len(head):
            try:
                given = conduit.give(self._file, count)
            except OSError:
                self._is_deaf = True
                return True
            if given == count:
                return True
        self._backlog.add((head, conduit.rest(count - given)), sent=sent)
        self._watch()
        return False

    def close(self) -> None:
        """Close, when the peer has taken what waits."""
        if not self._backlog or self._is_deaf:
            self.abort()
        elif not self._is_closing:
            self._is_closing = True
            self._watch()

    def say_goodbye(self, ended: Callable[[], object]) -> None:
        """Send no more, and drop what still comes: who closes while more is on its way resets the connection, and the
        peer never hears what was wrong. ``ended`` is called when the peer has ended, too."""
        self.start(received=_nothing, drained=self._shut, lost=lambda _: ended())
        if not self._backlog:
            self._shut()

    def _shut(self) -> None:
        with contextlib.suppress(OSError):  # it is gone already
            self.socket.shutdown(socket.SHUT_WR)

    def abort(self) -> None:
        """Close now."""
        if not self.is_closed:
            self.is_closed = True
            self._backlog.clear()
            if self._mask:
                self._mask = 0
                self.poller.forget(self._file)
            self.socket.close()
            self.closed.set()
            self._lost("")

    def _ready(self, mask: int) -> None:
        try:
            if mask & ~READ and self._backlog:
                self._flush()
            if mask & ~WRITE and self._is_started and not (self.is_closed or self._is_closing):
                self._read()
        except BaseException:
            # A bug: whoever waits for this connection must not wait for ever.
            self.abort()
            raise

    def _read(self) -> None:
        if self.passage is not None:
            self.passage()
            return
        incoming = self.poller.buffers.incoming
        try:
            count = self.socket.recv_into(incoming, min(self.next, self.pace.most))
        except BlockingIOError:
            return
        except OSError as error:
            self.end(f"the connection was lost: {error}")
            return
        if count > LEAST:
            began = thread_time()
            self._received(incoming[:count])
            self.pace.took(thread_time() - began)
        elif count:
            self._received(incoming[:count])
        else:
            self.end("")

    def _flush(self) -> None:
        try:
            self._backlog.send(self.socket)
        except BlockingIOError:
            return
        except OSError:
            self._is_deaf = True
            self._backlog.clear()
        if self._backlog:
            return
        if self._is_closing:
            self.abort()
        else:
            self._watch()
            self._drained()

    def end(self, reason: str) -> None:
        """Nothing more comes; the socket stays until it is closed."""
        self._is_started = False
        self._watch()
        self._lost(reason)

    def _watch(self) -> None:
        reads = READ if self._is_started and not self._is_closing else 0
        self._set(reads | (WRITE if self._backlog else 0))

    def _set(self, mask: int) -> None:
        if mask == self._mask:
            return
        self._mask = mask
        if mask:
            self.poller.set(self._file, mask, self._ready)
        else:
            self.poller.drop(self._file)


def _nothing(*_: object) -> None:
    """Nobody is there to be told."""
