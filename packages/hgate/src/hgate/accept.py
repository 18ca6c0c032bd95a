"""Accepts connections of a listening socket that other workers share: nobody is woken in vain, and none is favoured."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable

from hbone.poller import ONE_OF_MANY, READ, Poller

log = logging.getLogger(__name__)

BATCH = 16  # then what is open has its turn, and the other workers take from the backlog
BACKLOG = 4096  # connections that may wait in the kernel; it takes no more than net.core.somaxconn
PAUSE = 0.1  # seconds, until files may have been closed
QUIET = 10.0  # seconds between two lines that say the same

Taken = Callable[[socket.socket, tuple[str, int]], None]


class Acceptor:
    """One worker's end of the listening socket; ``taken`` gets each connection, not blocking.

    ``has_room`` is asked before each: while there is none, connections wait in the kernel, and another worker may
    take them. ``resume`` is to be called when there is room again.
    """

    def __init__(self, *, listener: socket.socket, poller: Poller, has_room: Callable[[], bool], taken: Taken) -> None:
        self._listener = listener
        self._poller = poller
        self._has_room = has_room
        self._taken = taken
        self._loop = asyncio.get_running_loop()
        self._said = -QUIET
        self._is_open = False
        self._is_waiting = False
        self._pause: asyncio.TimerHandle | None = None

    def open(self) -> None:
        """Accept from now on."""
        self._is_open = True
        self.resume()

    def close(self) -> None:
        """Accept no more, but for those who wait: when the last worker closes the socket, the kernel resets them."""
        for _ in range(BACKLOG if self._is_open else 0):
            if not (self._has_room() and self._accept()):
                break
        self._is_open = False
        self._stand_back()
        if self._pause is not None:
            self._pause.cancel()
        self._listener.close()

    def resume(self) -> None:
        """There may be room again."""
        if self._is_open and not self._is_waiting and self._pause is None:
            self._stand_in_line()

    def look(self) -> None:
        """See whether somebody waits: the one who was woken for it may have died before it looked."""
        if self._is_open and self._is_waiting:
            self._stand_back()
            self._stand_in_line()

    def __call__(self, events: int) -> None:
        """Somebody waits."""
        for _ in range(BATCH):
            if not self._has_room():
                self._stand_back()
                return
            if not self._accept():
                break
        # To the end of the line: else the worker that registered first is woken for each, as long as it sleeps.
        self.look()

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
        try:
            self._taken(connected, peer[:2])
        except Exception as error:  # noqa: BLE001 - what one client meets must not end the accepting of others
            log.error("a bug ended a connection", extra={"fields": {"reason": repr(error)}})
            connected.close()
        return True

    def _stand_in_line(self) -> None:
        self._poller.set(self._listener.fileno(), READ | ONE_OF_MANY, self)
        self._is_waiting = True

    def _stand_back(self) -> None:
        if self._is_waiting:
            self._poller.drop(self._listener.fileno())
            self._is_waiting = False

    def _cannot(self, error: OSError) -> None:
        if isinstance(error, ConnectionAbortedError):
            return
        if self._loop.time() - self._said >= QUIET:
            self._said = self._loop.time()
            log.warning("cannot accept", extra={"fields": {"reason": error.strerror}})
        # Whatever accept(2) says, some of it is said again at once, without ever waiting: never try in a row.
        self._stand_back()
        self._pause = self._loop.call_later(PAUSE, self._go_on)

    def _go_on(self) -> None:
        self._pause = None
        self.resume()
