"""On the way to a raw route's address: its name is looked up, and its addresses are dialled, one after the other."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable

from hbone import sockets
from hbone.poller import WRITE, Poller
from hbone.urls import Address
from hgate.connection import BY_BUG, ENDED_NOW, Connection
from hgate.counts import BUG, UNREACHABLE
from hgate.deadlines import Deadlines
from hgate.resolver import Found, Resolver, Start

SECONDS = 10.0  # for each address


class Approaches:
    """All that are under way; ``arrived`` gets each with its socket, or none when the connection has failed."""

    def __init__(
        self,
        *,
        poller: Poller,
        start: Start,
        arrived: Callable[[Approach, socket.socket | None], None],
        seconds: float = SECONDS,
    ) -> None:
        self.poller = poller
        self.arrived = arrived
        self.resolver = Resolver(start=start)
        self.late: Deadlines[Approach] = Deadlines(seconds=seconds, passed=lambda approach: approach.is_late())


class Approach:
    """The way of one connection, which has said ``first``."""

    __slots__ = ("_address", "_addresses", "_all", "_is_over", "_reason", "_socket", "connection", "first")

    def __init__(self, connection: Connection, first: bytes, address: Address, *, approaches: Approaches) -> None:
        self.connection = connection
        self.first = first
        self._address = address
        self._all = approaches
        self._addresses: list[Found] = []
        self._reason = ""
        self._socket: socket.socket | None = None
        self._is_over = False

    def begin(self) -> None:
        self._all.resolver.find(self._address, self._found)

    def end_now(self) -> None:
        self._end(ENDED_NOW, cause=UNREACHABLE)

    def end_by_bug(self) -> None:
        if not self._is_over:
            self._end(BY_BUG, cause=BUG)

    def _end(self, reason: str, *, cause: str) -> None:
        if self._socket is not None:
            self._all.late.done(self)
            self._give_up(self._socket)
        self._fail(reason, cause=cause)

    def __call__(self, events: int) -> None:
        """Connected, or not."""
        if self._socket is not None:
            self._settle(self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))

    def is_late(self) -> None:
        self._settle(errno.ETIMEDOUT)

    def _found(self, addresses: list[Found], reason: str) -> None:
        if self._is_over:
            return
        if addresses:
            self._addresses = list(addresses)
            self._next()
        else:
            self._fail(f"cannot find {self._address.host}: {reason} (hint: is the host's name right?)")

    def _next(self) -> None:
        """Dial the next address, or say that there is none."""
        if not self._addresses:
            self._fail(f"cannot reach {self._address}: {self._reason} (hint: does the workload listen there?)")
            return
        family, address = self._addresses.pop(0)
        try:
            dialled = self._socket = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        except OSError as error:
            self._reason = error.strerror or str(error)
            self._next()
            return
        sockets.tune(dialled)
        code = dialled.connect_ex(address)
        # Also when it is connected, or refused, at once: that is said then.
        self._all.poller.set(dialled.fileno(), WRITE, self)
        self._all.late.add(self)
        if code not in (0, errno.EINPROGRESS):
            self._settle(code)

    def _settle(self, code: int) -> None:
        dialled = self._socket
        if dialled is None:
            return
        self._all.late.done(self)
        if code:
            self._give_up(dialled)
            self._reason = os.strerror(code)
            self._next()
        else:
            self._is_over = True
            self._all.arrived(self, dialled)

    def _give_up(self, dialled: socket.socket) -> None:
        self._socket = None
        self._all.poller.drop(dialled.fileno())
        dialled.close()

    def _fail(self, reason: str, *, cause: str = UNREACHABLE) -> None:
        self._is_over = True
        self.connection.failed(reason, cause=cause)
        self._all.arrived(self, None)
