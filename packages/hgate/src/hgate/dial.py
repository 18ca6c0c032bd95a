"""Dials an address without waiting: one socket after the other, until one is connected or none is left."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Sequence

from hbone import sockets
from hbone.poller import WRITE, Poller
from hgate.deadlines import Deadlines

SECONDS = 10.0
Found = tuple[socket.AddressFamily, tuple[str, int]]
Done = Callable[[socket.socket | None, str], None]


class Dials:
    """All that are under way."""

    def __init__(self, *, poller: Poller, seconds: float = SECONDS) -> None:
        self.poller = poller
        self.late: Deadlines[Dial] = Deadlines(seconds=seconds, passed=lambda dial: dial.is_late())

    def start(self, addresses: Sequence[Found], done: Done) -> None:
        """Dial the first of these that answers; ``done`` gets the socket, or none and the reason."""
        Dial(self, addresses, done).next()


class Dial:
    """One of them."""

    __slots__ = ("_addresses", "_dials", "_done", "_reason", "_socket")

    def __init__(self, dials: Dials, addresses: Sequence[Found], done: Done) -> None:
        self._dials = dials
        self._addresses = list(addresses)
        self._done = done
        self._reason = "it has no address"
        self._socket: socket.socket | None = None

    def __call__(self, events: int) -> None:
        """Connected, or not."""
        if self._socket is None:
            return
        code = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        self._settle(code)

    def next(self) -> None:
        """Dial the next address, or say that there is none."""
        if not self._addresses:
            self._done(None, self._reason)
            return
        family, address = self._addresses.pop(0)
        try:
            self._socket = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        except OSError as error:
            self._done(None, error.strerror or str(error))
            return
        sockets.tune(self._socket)
        code = self._socket.connect_ex(address)
        if code != errno.EINPROGRESS:
            self._fail_or_give(code)
            return
        self._dials.late.add(self)
        self._dials.poller.set(self._socket.fileno(), WRITE, self)

    def is_late(self) -> None:
        self._settle(errno.ETIMEDOUT)

    def _settle(self, code: int) -> None:
        self._dials.late.done(self)
        if self._socket is not None:
            self._dials.poller.drop(self._socket.fileno())
        self._fail_or_give(code)

    def _fail_or_give(self, code: int) -> None:
        dialled, self._socket = self._socket, None
        if dialled is None:
            return
        if not code:
            self._done(dialled, "")
            return
        dialled.close()
        self._reason = os.strerror(code)
        self.next()
