"""Leads a connection on as it is: the kernel moves the bytes from socket to socket, by a pipe, unseen.

Each direction ends by itself, a slow reader stops the one who sends to it, and what is broken on one side is broken,
not ended, on the other. An open connection that is silent holds two sockets, and nothing else.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable

from hbone.poller import BROKEN, HUNG_UP, READ, WRITE, Poller
from hgate.connection import BY_BUG, ENDED, ENDED_NOW, Connection, close
from hgate.counts import BROKEN as BROKEN_CAUSE
from hgate.counts import BUG
from hgate.pipes import SIZE, Pipe, Pipes

TURNS = 4  # of SIZE each: then the other connections have theirs
ENOUGH = 16 * 1024  # less than this was all that there was: most likely, asking again would be in vain
COPY = 64 * 1024  # at once, when there is no pipe
FLAGS = os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK
CLIENT, WORKLOAD = "the client", "the workload"


class Raw:
    """One connection and its other half; ``over`` is told when both directions have ended, or it is broken.

    ``dialled`` is with the poller already, as whoever dialled it has waited until it was writable.
    """

    __slots__ = ("_is_over", "_over", "client", "connection", "pipes", "poller", "workload")

    def __init__(
        self,
        connection: Connection,
        dialled: socket.socket,
        *,
        poller: Poller,
        pipes: Pipes,
        over: Callable[[Raw], None],
    ) -> None:
        self.connection = connection
        self.poller = poller
        self.pipes = pipes
        self.client = Side(connection.socket, self)
        self.workload = Side(dialled, self, mask=WRITE)
        self.client.other, self.workload.other = self.workload, self.client
        self._over = over
        self._is_over = False

    def begin(self, first: bytes) -> None:
        """Send on what the client has said already, and go on with both."""
        self.workload.want(READ)
        self.client.send(first)

    def end_now(self) -> None:
        self.end(ENDED_NOW)

    def end_by_bug(self) -> None:
        if not self._is_over:
            self.connection.counts.errors[BUG] += 1
            self.end(BY_BUG)

    def broke(self, side: Side, error: OSError) -> None:
        if self._is_over:
            return
        self.connection.counts.errors[BROKEN_CAUSE] += 1
        name = CLIENT if side is self.client else WORKLOAD
        self.end(f"{name} is gone: {error.strerror or error}")

    def end(self, reason: str) -> None:
        if self._is_over:
            return
        self._is_over = True
        is_orderly = reason == ENDED
        self.client.close(is_orderly=is_orderly)
        self.workload.close(is_orderly=is_orderly)
        self.connection.closed(sent=self.client.count, received=self.workload.count, reason=reason)
        self._over(self)
        # They know each other, and us: it would be the collector's work to find out that nobody else does.
        del self.client.other, self.workload.other, self.client, self.workload


class Side:
    """One of the two sockets, and what was read from it and is not yet with the other."""

    __slots__ = ("_file", "_is_ended", "_is_set", "_mask", "_pipe", "_raw", "_rest", "_socket", "count", "other")

    other: Side

    def __init__(self, connected: socket.socket, raw: Raw, *, mask: int = 0) -> None:
        self.count = 0  # bytes read
        self._raw = raw
        self._socket = connected
        self._file = connected.fileno()
        self._mask = mask
        self._is_set = bool(mask)
        self._is_ended = False
        self._pipe: Pipe | None = None
        self._rest = b""

    def __call__(self, events: int) -> None:
        """The socket is ready for these."""
        if events & WRITE and self._mask & WRITE:
            self.other.go_on()
        if self._file < 0:
            return
        if self._mask & READ:
            if events & ~WRITE:
                self._read()
        elif events & BROKEN:
            code = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            self._raw.broke(self, OSError(code, os.strerror(code)) if code else OSError("broken"))
        elif events & HUNG_UP and not self._mask:
            # It would be said again and again, while the other side is too slow to take what is still to be read.
            self._raw.poller.drop(self._file)
            self._is_set = False

    def end_by_bug(self) -> None:
        self._raw.end_by_bug()

    def want(self, mask: int) -> None:
        """What to wait for from now on."""
        if mask != self._mask or not self._is_set:
            self._mask = mask
            self._raw.poller.set(self._file, mask, self)
            self._is_set = True

    def send(self, first: bytes) -> None:
        """Send this to the other, before what is still to be read from here."""
        self.count += len(first)
        self._rest = first
        self._raw.connection.counts.sent += len(first)
        self.go_on()

    def go_on(self) -> None:
        """The other takes again what has been read from here."""
        if self._rest and not self._send_rest():
            return
        if self._pipe is not None:
            if not self._empty(self._pipe):
                return
            self._raw.pipes.give(self._pipe)
            self._pipe = None
        if self.other._mask & WRITE:
            self.other.want(self.other._mask & ~WRITE)
        self.want(self._mask | READ)

    def close(self, *, is_orderly: bool) -> None:
        if self._is_set:
            self._raw.poller.forget(self._file)
        self._file = -1
        if self._pipe is not None:
            self._raw.pipes.give(self._pipe)
            self._pipe = None
        close(self._socket, is_orderly=is_orderly)

    def _read(self) -> None:
        """Move what there is to the other, which takes it at once, as far as we know."""
        for _ in range(TURNS):
            pipe = self._raw.pipes.take()
            if pipe is None:
                self._copy()
                return
            try:
                count = pipe.held = os.splice(self._file, pipe.into, SIZE, flags=FLAGS)
            except BlockingIOError:
                self._raw.pipes.give(pipe)
                return
            except OSError as error:
                self._raw.pipes.give(pipe)
                self._raw.broke(self, error)
                return
            if count:
                self._counted(count)
                if not self._empty(pipe):
                    return
            self._raw.pipes.give(pipe)
            if not count:
                self._ended()
                return
            if count < ENOUGH:
                return

    def _empty(self, pipe: Pipe) -> bool:
        """Move all that is in the pipe to the other; false when it does not take it now, or is gone."""
        try:
            while pipe.held:
                pipe.held -= os.splice(pipe.out, self.other._file, pipe.held, flags=FLAGS)
        except BlockingIOError:
            self._pipe = pipe
            self._hold()
            return False
        except OSError as error:
            self._pipe = pipe
            self._raw.broke(self.other, error)
            return False
        return True

    def _copy(self) -> None:
        """The same without a pipe."""
        try:
            data = self._socket.recv(COPY)
        except BlockingIOError:
            return
        except OSError as error:
            self._raw.broke(self, error)
            return
        if not data:
            self._ended()
            return
        self._counted(len(data))
        self._rest = data
        self._send_rest()

    def _send_rest(self) -> bool:
        try:
            sent = self.other._socket.send(self._rest)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self._raw.broke(self.other, error)
            return False
        self._rest = self._rest[sent:]
        if self._rest:
            self._hold()
        return not self._rest

    def _hold(self) -> None:
        """Read no more until the other has taken what there is."""
        self.want(self._mask & ~READ)
        self.other.want(self.other._mask | WRITE)

    def _ended(self) -> None:
        """It has said all: say so to the other."""
        self._is_ended = True
        if self.other._is_ended:
            self._raw.end(ENDED)
            return
        self.want(self._mask & ~READ)
        try:
            self.other._socket.shutdown(socket.SHUT_WR)
        except OSError as error:
            self._raw.broke(self.other, error)

    def _counted(self, count: int) -> None:
        self.count += count
        if self is self._raw.client:
            self._raw.connection.counts.sent += count
        else:
            self._raw.connection.counts.received += count
