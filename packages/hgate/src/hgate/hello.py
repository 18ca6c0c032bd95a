"""Connections whose hello has not come whole: gathers it within limits of size, time and number."""

from __future__ import annotations

from collections.abc import Callable
from sys import intern

from hbone.poller import READ, Poller
from hgate.clienthello import MAX_SIZE, HelloError, Parser, in_one_piece
from hgate.connection import BY_BUG, Connection
from hgate.counts import BUG, CROWD, HELLO
from hgate.deadlines import Deadlines

# Of all that wait; beyond it the oldest has to go for the next: whoever is honest is quick.
MAX_WAITING = 4096
MAX_HELD = 16 * 1024 * 1024  # bytes
_READ = MAX_SIZE + 1

Taken = Callable[[Connection, bytes], None]


class Hellos:
    """All whose hello is not whole; ``taken`` gets each with its ``sni`` and what has been read so far.

    ``gone`` is told of each that was refused, or left.
    """

    def __init__(
        self,
        *,
        poller: Poller,
        seconds: float,
        taken: Taken,
        gone: Callable[[], None],
    ) -> None:
        self.poller = poller
        self._taken = taken
        self._gone = gone
        self._held = 0  # bytes
        self._late: Deadlines[Hello] = Deadlines(seconds=seconds, passed=self._is_late)

    def __len__(self) -> int:
        return len(self._late)

    def take(self, connection: Connection) -> None:
        """A new connection: most have said all by the time that they are accepted."""
        hello = Hello(connection, self)
        hello.read()
        if hello.is_over:
            return
        hello.is_waiting = True
        self._late.add(hello)
        self.poller.set(connection.socket.fileno(), READ, hello)
        self.holds(hello.size)

    def holds(self, count: int) -> None:
        """So many bytes more wait; whoever has waited longest makes room, if there is none."""
        self._held += count
        while self._held > MAX_HELD or len(self._late) > MAX_WAITING:
            oldest = self._late.oldest
            if oldest is None:
                return
            oldest.refuse(f"{len(self._late)} connections wait with half a ClientHello", cause=CROWD)

    def end_all(self, reason: str) -> None:
        for hello in self._late.take_all():
            hello.refuse(reason, cause=HELLO)

    def finished(self, hello: Hello) -> None:
        """It waits no more: taken or refused."""
        if hello.is_waiting:
            self._held -= hello.size
            self._late.done(hello)
            self.poller.drop(hello.connection.socket.fileno())

    def whole(self, connection: Connection, first: bytes) -> None:
        self._taken(connection, first)

    def gone(self) -> None:
        self._gone()

    def _is_late(self, hello: Hello) -> None:
        hello.refuse(f"no whole ClientHello within {self._late.seconds:g} s", cause=HELLO)


class Hello:
    """One of them."""

    __slots__ = ("_hellos", "_parser", "_read", "connection", "is_over", "is_waiting")

    def __init__(self, connection: Connection, hellos: Hellos) -> None:
        self.connection = connection
        self.is_waiting = False
        self.is_over = False
        self._hellos = hellos
        self._parser: Parser | None = None
        self._read = b""

    @property
    def size(self) -> int:
        """Bytes that came so far."""
        return len(self._read)

    def __call__(self, events: int) -> None:
        """There is something to read, or the end."""
        self.read()

    def read(self) -> None:
        """Read what is there; nothing is left in the socket to wake us for it again."""
        connection = self.connection
        try:
            data = connection.socket.recv(_READ)
        except BlockingIOError:
            return
        except OSError as error:
            self.refuse(f"the client is gone: {error.strerror}", cause=HELLO)
            return
        if not data:
            self._ended()
            return
        self._read = self._read + data if self._read else data
        if self.is_waiting:
            self._hellos.holds(len(data))
            if self.is_over:
                return
        try:
            found = in_one_piece(data) if self._parser is None else None
            if found is None:
                self._parser = self._parser or Parser()
                found = self._parser.feed(data)
        except HelloError as error:
            self.refuse(str(error), cause=HELLO)
            return
        if found is not None:
            connection.sni = intern(found.sni)  # a few names, and thousands of connections
            self._finish()
            self._hellos.whole(connection, self._read)

    def refuse(self, reason: str, *, cause: str) -> None:
        self._finish()
        self.connection.refused(reason, cause=cause)
        self._hellos.gone()

    def end_by_bug(self) -> None:
        """The poller has met one."""
        if not self.is_over:
            self.refuse(BY_BUG, cause=BUG)

    def _ended(self) -> None:
        if self._read:
            self.refuse("the connection ended before a whole ClientHello", cause=HELLO)
        else:
            # A load balancer's question whether the port is there, every few seconds: no line, and no error.
            self._finish()
            self.connection.close(is_orderly=True)
            self._hellos.gone()

    def _finish(self) -> None:
        self.is_over = True
        self._hellos.finished(self)
