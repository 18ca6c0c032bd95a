"""Takes local connections in batches, as many at a time as there are files for, without a task for each."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable

from hbone.poller import READ, of_loop

log = logging.getLogger(__name__)

BATCH = 64  # connections in a row: then those who are here have their turn
PAUSE = 0.1  # seconds, until files may have been closed
QUIET = 10.0  # seconds between two lines that say the same


class Doorway:
    """The listening socket, which is closed with it."""

    def __init__(self, listener: socket.socket, *, room: int, arrived: Callable[[socket.socket, str], object]) -> None:
        """``arrived`` is given each connection and its peer's name; ``left`` is to be called when one is over. While
        ``room`` of them are here the others wait in the kernel, as there is then no file to lead them on by either."""
        self.count = 0
        self.is_empty = asyncio.Event()
        self.is_empty.set()
        self._listener = listener
        self._room = room
        self._arrived = arrived
        self._loop = asyncio.get_running_loop()
        self._poller = of_loop()
        self._is_open = False
        self._is_waiting = False  # for a pause to be over
        self._said = -QUIET

    def open(self) -> None:
        """Take connections, from now on."""
        if not self._is_open and not self._is_waiting and self._listener.fileno() >= 0:
            self._is_open = True
            self._poller.set(self._listener.fileno(), READ, self._ready)

    def close(self) -> None:
        """Take no more; those who are here stay."""
        self._shut()
        self._listener.close()

    def left(self) -> None:
        """A connection is over."""
        self.count -= 1
        if not self.count:
            self.is_empty.set()
        self.open()

    def _shut(self) -> None:
        if self._is_open:
            self._is_open = False
            self._poller.drop(self._listener.fileno())

    def _ready(self, _: int) -> None:
        for _ in range(BATCH):
            if self.count >= self._room:
                self._shut()
                return
            try:
                connected, peer = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                self._pause(error)
                return
            connected.setblocking(False)
            self.count += 1
            self.is_empty.clear()
            self._arrived(connected, f"{peer[0]}:{peer[1]}")

    def _pause(self, error: OSError) -> None:
        """Whatever accept(2) says, some of it is said again at once, without ever waiting: never try in a row."""
        now = self._loop.time()
        if now - self._said >= QUIET and not isinstance(error, ConnectionAbortedError):
            self._said = now
            log.warning("cannot accept", extra={"fields": {"reason": error.strerror}})
        self._shut()
        self._is_waiting = True
        self._loop.call_later(PAUSE, self._go_on)

    def _go_on(self) -> None:
        self._is_waiting = False
        self.open()
