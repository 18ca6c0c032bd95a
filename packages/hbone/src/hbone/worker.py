"""A worker of hboned, as itself: hears from its parent what to do, and tells it how it is."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable

from hbone.doorway import Doorway
from hbone.restarts import LOOKS
from hbone.shares import Shares
from hbone.stop import Stop

log = logging.getLogger(__name__)

# One byte each, so that none comes in halves.
READY, IDLE, WELL = b"r", b"i", b"."  # to the parent
DRAIN, NOW, LOOK = b"d", b"n", b"l"  # from it
READ = 4096


class Worker:
    """The socket to the parent, which gives no signals: those of a terminal, or of a container, go to all at once."""

    def __init__(self, wire: socket.socket, *, shares: Shares, timeout: float) -> None:
        """``timeout``: seconds of silence after which the parent takes it that we hang."""
        self.shares = shares
        self._wire = wire
        self._every = timeout / LOOKS
        self._look: Callable[[], object] = lambda: None

    def open(self, stop: Stop) -> None:
        """Listen to the parent, and say from now on that we are well. When it is gone, all ends: nobody would end us
        any more, and the port is to be free."""
        self._stop = stop
        self._loop = asyncio.get_running_loop()
        self._wire.setblocking(False)
        self._loop.add_reader(self._wire, self._hear)
        self._be_well()

    def opened(self, doorway: Doorway) -> None:
        """Where it is seen whether somebody waits to be accepted."""
        self._look = doorway.look

    def ready(self) -> None:
        self._say(READY)

    def idle(self) -> None:
        self._say(IDLE)

    def _be_well(self) -> None:
        self._say(WELL)
        # Another worker may hang, or have died, that was woken for somebody.
        self._look()
        self._loop.call_later(self._every, self._be_well)

    def _hear(self) -> None:
        try:
            words = self._wire.recv(READ)
        except BlockingIOError:
            return
        except OSError:
            words = b""
        if not words:
            self._loop.remove_reader(self._wire)
            log.error("the parent is gone: this worker ends at once")
        if LOOK in words:
            self._look()
        if DRAIN in words or NOW in words or not words:
            self._stop.draining.set()
        if NOW in words or not words:
            self._stop.now.set()

    def _say(self, word: bytes) -> None:
        with contextlib.suppress(OSError):  # it is gone, or does not read: then it has other troubles
            self._wire.send(word)
