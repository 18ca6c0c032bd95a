"""Takes connections of a listening socket in batches, without a task for each, and shares them with other processes."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable

from hbone.poller import ONE_OF_MANY, READ, of_loop
from hbone.shares import Shares

log = logging.getLogger(__name__)

BACKLOG = 4096  # connections that may wait in the kernel; it takes no more than net.core.somaxconn
BATCH = 16  # connections in a row: then those who are here have their turn, and other processes take from the backlog
PAUSE = 0.1  # seconds, until files may have been closed
QUIET = 10.0  # seconds between two lines that say the same
LEFT = 0.2  # seconds that connections are left to another worker, who has less
GLANCE = 0.005  # seconds until it is seen whether it still has
SLOW = 1.0  # seconds for which it is taken at once, as the other was not there in time

Peer = tuple[str, int]


class Doorway:
    """The listening socket, which is closed with it."""

    def __init__(
        self,
        listener: socket.socket,
        *,
        room: int,
        count: Callable[[], int],
        arrived: Callable[[socket.socket, Peer], object],
        shares: Shares | None = None,
    ) -> None:
        """``arrived`` is given each connection and its peer, and must not wait; ``count`` says how many are here, and
        ``left`` is to be called when one is over. While ``room`` of them are here the others wait in the kernel, as
        there is no file then to lead them on by either; another process that shares the socket may take them."""
        self.is_empty = asyncio.Event()
        self.is_empty.set()
        self._listener = listener
        self._room = room
        self._count = count
        self._arrived = arrived
        self._shares = shares
        self._loop = asyncio.get_running_loop()
        self._poller = of_loop()
        self._is_open = False
        self._is_in_line = False
        self._pause: asyncio.TimerHandle | None = None
        self._said = -QUIET
        self._leaves_until = 0.0  # until when others are left what comes; 0 when they are not
        self._trusts_at = 0.0  # from when on they may be

    def open(self) -> None:
        """Take connections, from now on."""
        self._is_open = True
        self._resume()

    def close(self) -> None:
        """Take no more; those who are here stay."""
        self._is_open = False
        self._stand_back()
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
        self._listener.close()

    def close_after_all(self) -> None:
        """The same, but for those who wait: when the last worker closes the socket, the kernel resets them."""
        for _ in range(BACKLOG if self._is_open else 0):
            if not (self._has_room and self._accept()):
                break
        self.close()

    def left(self) -> None:
        """A connection is over."""
        count = self._count()
        if self._shares is not None:
            self._shares.count = count
            if self._leaves_until and not self._shares.has_more():
                self._come_back()
        if not count:
            self.is_empty.set()
        self._resume()

    def look(self) -> None:
        """See whether somebody waits: the one who was woken for it may have died before it looked, or hang."""
        if self._is_in_line:
            self._stand_back()
            self._stand_in_line()

    @property
    def _has_room(self) -> bool:
        return self._count() < self._room

    def _resume(self) -> None:
        if self._is_open and not self._is_in_line and self._pause is None:
            self._stand_in_line()

    def _ready(self, _: int) -> None:
        for _ in range(BATCH):
            if not self._has_room:
                self._stand_back()
                return
            if self._is_anothers():
                self._leaves_until = self._loop.time() + LEFT
                self._wait(GLANCE, then=self._glance)
                return
            if not self._accept():
                break
        # To the end of the line: else the worker that came first is woken for each, as long as it sleeps.
        if self._shares is None or not self._shares.has_less():
            self.look()

    def _is_anothers(self) -> bool:
        return self._shares is not None and self._shares.is_anothers() and self._loop.time() >= self._trusts_at

    def _glance(self) -> None:
        """See whether the others still have less; who waits since is not to suffer for it."""
        self._pause = None
        if self._loop.time() < self._leaves_until and self._shares is not None and self._shares.has_more():
            self._wait(GLANCE, then=self._glance)
            return
        if self._loop.time() >= self._leaves_until and self._has_room and self._accept():
            self._trusts_at = self._loop.time() + SLOW
        self._come_back()

    def _come_back(self) -> None:
        self._leaves_until = 0.0
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
        self._resume()

    def _accept(self) -> bool:
        """Take one; false when nobody waits, or none can be taken."""
        try:
            connected, peer = self._listener.accept()
        except BlockingIOError:
            return False
        except OSError as error:
            self._cannot(error)
            return False
        connected.setblocking(False)
        self.is_empty.clear()
        try:
            self._arrived(connected, peer[:2])
        except Exception as error:  # noqa: BLE001 - what one client meets must not end the accepting of others
            log.error("a bug ended a connection", extra={"fields": {"reason": repr(error)}})
            connected.close()
            self.left()
        if self._shares is not None:
            self._shares.count = self._count()
        return True

    def _stand_in_line(self) -> None:
        if self._shares is not None:
            self._shares.will_wait()
        self._poller.set(self._listener.fileno(), READ | ONE_OF_MANY, self._ready)
        if self._shares is not None:
            self._shares.waits()
        self._is_in_line = True

    def _stand_back(self) -> None:
        if self._is_in_line:
            if self._shares is not None:
                self._shares.leaves()
            self._poller.drop(self._listener.fileno())
            self._is_in_line = False

    def _cannot(self, error: OSError) -> None:
        if isinstance(error, ConnectionAbortedError):
            return
        if self._loop.time() - self._said >= QUIET:
            self._said = self._loop.time()
            log.warning("cannot accept", extra={"fields": {"reason": error.strerror}})
        # Whatever accept(2) says, some of it is said again at once, without ever waiting: never try in a row.
        self._wait(PAUSE, then=self._go_on)

    def _wait(self, seconds: float, *, then: Callable[[], None]) -> None:
        self._stand_back()
        if self._pause is None:
            self._pause = self._loop.call_later(seconds, then)

    def _go_on(self) -> None:
        self._pause = None
        self._resume()
