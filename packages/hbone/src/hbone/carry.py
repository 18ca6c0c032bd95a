"""Carries bytes between a local socket and a stream: back pressure and half-close in both directions, without tasks.

An end of data in one direction ends that direction only. What is broken on one side is broken, not ended, on the
other: a reader must be able to tell a whole answer from half of one.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Sequence

from hbone import outgoing, sockets
from hbone.backlog import Backlog, Piece
from hbone.conduit import LEAST, Conduit, Unable
from hbone.events import Fields
from hbone.flow import Flow
from hbone.linger import Linger
from hbone.poller import READ, WRITE
from hbone.session import Session
from hbone.stream import ENDED_NOW, StreamBroken
from hbone.tunnel import CANCEL, CONNECT_ERROR, NO_ERROR

ENDED = "ended"
LOCAL_GONE = "local end is gone"
MAX_PIECES = 256  # of one system call


class Carry:
    """One tunnel while it runs: a party of the session, and a sender. ``reason`` says at the end how it ended."""

    __slots__ = (
        "_closed", "_dropping", "_file", "_first", "_flow", "_is_bulk", "_is_local_ended", "_is_over",
        "_is_peer_ended", "_is_stopped", "_lingering", "_local", "_mask", "_patience", "_rest",
        "_session", "from_local", "reason", "to_local",
    )  # fmt: skip

    def __init__(
        self,
        *,
        session: Session,
        flow: Flow,
        local: socket.socket,
        closed: Callable[[Carry], object],
        first: bytes = b"",
        patience: float = 0.0,
    ) -> None:
        """Carry ``first`` before what the local end says from now on.

        With ``patience``, a server's: seconds that a request's rest is read, and dropped when its target is gone.
        """
        self.to_local = 0
        self.from_local = 0
        self.reason = ""
        self._session = session
        self._flow = flow
        self._local = local
        self._file = local.fileno()
        self._closed = closed
        self._first = first
        self._patience = patience
        self._mask = 0
        self._rest: Backlog | None = None  # what the local end has not taken yet
        self._is_bulk = False  # the local end has said much the last time
        self._is_local_ended = False
        self._is_peer_ended = False
        self._is_stopped = False  # the peer has sent all, and takes nothing more
        self._is_over = False
        self._dropping: asyncio.TimerHandle | None = None  # since the local end takes nothing more
        self._lingering: Linger | None = None  # since it has said all

    @property
    def is_orderly(self) -> bool:
        return self.reason == ENDED

    def start(self, *, is_silent: bool = False) -> None:
        """From here on; the stream's party must be this. ``is_silent``: the local end has hardly said anything yet."""
        self._flow.passer = self
        if is_silent:
            self._watch(READ)
        else:
            self.take_turn()

    def end_now(self) -> None:
        """Break it."""
        if not self._is_over:
            self._session.core.reset(self._flow.number, CANCEL)
            self._finish(ENDED_NOW)

    def take_turn(self) -> None:
        """Send a turn's worth of what the local end says, if the peer and the socket have room for it."""
        if self._is_over or self._is_local_ended or self._is_stopped:
            return
        session, flow = self._session, self._flow
        room = session.core.room(flow)
        if not room or session.link.backlog:
            self._watch(self._mask & ~READ)
            if room:
                session.wait(self)
            return
        if self._first:
            self._send_first(room)
            return
        try:
            count, is_room = outgoing.send(
                self._local, session=session, flow=flow, room=room, sender=self, is_bulk=self._is_bulk
            )
        except BlockingIOError:
            self._watch(self._mask | READ)
            return
        except OSError as error:
            self._break(error, code=CONNECT_ERROR)
            return
        if not count:
            self._local_ended()
            return
        self.from_local += count
        self._is_bulk = count >= LEAST
        if is_room:
            self._watch(self._mask | READ)
        else:
            self._watch(self._mask & ~READ)
            session.wait(self)

    def _send_first(self, room: int) -> None:
        count = min(room, len(self._first))
        self._session.core.send(self._flow.number, self._first[:count])
        self._first = self._first[count:]
        self.from_local += count
        self._session.flush()
        if self._first:
            self._session.wait(self)
        else:
            self.take_turn()

    def _local_ended(self) -> None:
        self._is_local_ended = True
        self._watch(self._mask & ~READ)
        if self._patience and not self._is_peer_ended:
            self._lingering = Linger(arrived=self._arrived, over=self._end_ours, patience=self._patience)
        else:
            self._end_ours()

    def _arrived(self) -> int:
        return self.to_local + (len(self._rest) if self._rest is not None else 0)

    def _end_ours(self) -> None:
        if self._lingering is not None:
            self._lingering.cancel()
            self._lingering = None
        self._session.core.end(self._flow.number)
        self._session.flush_soon()
        self._finish_if_done()

    def _ready(self, mask: int) -> None:
        if mask & ~READ and self._rest is not None:
            self._write_rest(self._rest)
        if mask & ~WRITE and self._mask & READ:
            self.take_turn()

    def received(self, pieces: Sequence[memoryview]) -> None:
        if self._is_over:
            return
        if self._dropping is not None:
            count = sum(map(len, pieces))
            self.to_local += count
            self._session.core.acknowledge(self._flow.number, count)
            return
        if self._rest is not None:
            self._rest.add(pieces)
        else:
            self._write(pieces)

    def pass_on(self, source: int, conduit: Conduit, count: int) -> int:
        """Take up to so many bytes of payload from the connection's file by the conduit: how many that were, 0 at its
        end. Raises OSError of the connection's, Unable when it is to be read."""
        if self._rest is not None or self._dropping is not None or self._is_over:
            raise Unable
        count = conduit.take(source, count)
        try:
            given = conduit.give(self._file, count)
        except OSError as error:
            self._drop(count, error)
            return count
        self._took(given, is_quick=given == count)
        if given < count:
            self._keep([conduit.rest(count - given)], sent=0)
        return count

    def _keep(self, pieces: Sequence[Piece], *, sent: int) -> None:
        """Until the local end has room, but for the first bytes, which it has taken."""
        self._rest = Backlog(self._session.poller.buffers.blocks)
        self._rest.add(pieces, sent=sent)
        self._watch(self._mask | WRITE)

    def _write(self, pieces: Sequence[memoryview]) -> None:
        count = len(pieces[0]) if len(pieces) == 1 else sum(map(len, pieces))
        if len(pieces) > MAX_PIECES:
            pieces = [memoryview(b"".join(pieces))]
        try:
            sent = self._local.sendmsg(pieces) if len(pieces) > 1 else self._local.send(pieces[0])
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self._drop(count, error)
            return
        self._took(sent, is_quick=sent == count)
        if sent < count:
            self._keep(pieces, sent=sent)

    def _write_rest(self, rest: Backlog) -> None:
        try:
            sent = rest.send(self._local)
        except BlockingIOError:
            return
        except OSError as error:
            self._drop(len(rest), error)
            return
        self._took(sent, is_quick=False)
        if not rest:
            self._rest = None
            self._watch(self._mask & ~WRITE)
            if self._is_peer_ended:
                self._peer_is_done()
        self._session.flush()

    def _took(self, count: int, *, is_quick: bool) -> None:
        self.to_local += count
        self._session.core.took(self._flow, count, is_quick=is_quick)

    def _drop(self, count: int, error: OSError) -> None:
        """The local end takes no more. A server reads the request's rest all the same, a client gives up."""
        if not self._patience:
            self._break(error, code=CANCEL)
            return
        if isinstance(error, ConnectionResetError) and not self._is_local_ended:
            # It is told once: who reads after this would take it for an end. After an end of its own it is EPIPE.
            self._break(error, code=CONNECT_ERROR)
            return
        self._let_go()
        self._watch(self._mask & ~WRITE)
        self._session.core.acknowledge(self._flow.number, count)
        self._dropping = asyncio.get_running_loop().call_later(self._patience, self._give_up)
        if self._is_peer_ended:
            self._peer_is_done()

    def _give_up(self) -> None:
        """Tell the peer to stop (RFC 9113 §8.1)."""
        is_whole = self._flow.is_ended_by_us
        self._session.core.reset(self._flow.number, NO_ERROR)
        self._session.flush_soon()
        self._finish(ENDED if is_whole else LOCAL_GONE)

    def ended(self) -> None:
        self._is_peer_ended = True
        if self._rest is None:
            self._peer_is_done()

    def _peer_is_done(self) -> None:
        """All that the peer has sent is with the local end."""
        if self._dropping is None:
            with contextlib.suppress(OSError):  # it is gone already: then it needs no word from us
                self._local.shutdown(socket.SHUT_WR)
        else:
            self._dropping.cancel()
        if self._lingering is not None:
            self._end_ours()
        else:
            self._finish_if_done()

    def _finish_if_done(self) -> None:
        is_ours_done = self._flow.is_ended_by_us or self._is_stopped
        if self._is_peer_ended and self._rest is None and is_ours_done:
            self._finish(ENDED)

    def has_room(self) -> None:
        if not self._mask & READ:
            self.take_turn()

    def broke(self, error: StreamBroken) -> None:
        """The stream is gone; after the peer's orderly end that only means that it wants no more of us."""
        if not self._is_peer_ended:
            self._finish(str(error))
            return
        self._is_stopped = True
        self._watch(self._mask & ~READ)
        self._finish_if_done()

    def opened(self, status: int, fields: Fields) -> None:
        """It has been answered already."""

    def informed(self, status: int, fields: Fields) -> None:
        """Nobody asks."""

    def ends_with(self, trailers: Fields) -> None:
        """A tunnel has none."""

    def _break(self, error: OSError, *, code: int) -> None:
        """The local end failed, and the peer is told."""
        self._session.core.reset(self._flow.number, code)
        self._session.flush_soon()
        self._finish(f"{LOCAL_GONE}: {error.strerror or error}")

    def _finish(self, reason: str) -> None:
        if self._is_over:
            return
        self._is_over = True
        self.reason = reason
        for timer in (self._dropping, self._lingering):
            if timer is not None:
                timer.cancel()
        if self._mask:
            self._mask = 0
            self._session.poller.forget(self._file)
        self._flow.passer = None
        session = self._session
        session.wait_no_more(self)
        if session.last_sender is self:
            session.last_sender = None
        session.forget(self._flow.number)
        sockets.close(self._local, is_orderly=reason == ENDED)
        self._let_go()
        self._closed(self)

    def _let_go(self) -> None:
        if self._rest is not None:
            self._rest.clear()
            self._rest = None

    def _watch(self, mask: int) -> None:
        if mask == self._mask:
            return
        self._mask = mask
        if mask:
            self._session.poller.set(self._file, mask, self._ready)
        else:
            self._session.poller.drop(self._file)
