"""One end of the socket between the control process and a worker: messages in and out, and none of it blocks."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable

from hgate import feed

log = logging.getLogger(__name__)

_READ = 256 * 1024
# Bytes that the other end has not read: then it has other troubles than to hear more of how we are.
ENOUGH = 256 * 1024


class Wire:
    """The socket; ``first`` may be read before the loop runs, then ``open`` gives the rest to ``heard``."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._decoder = feed.Decoder()
        self._early: list[feed.Message] = []
        self._unsent = bytearray()
        self._loop: asyncio.AbstractEventLoop | None = None  # while it is open
        self._heard: Callable[[feed.Message], None] = self._early.append
        self._gone: Callable[[], None] = lambda: None

    @property
    def is_crowded(self) -> bool:
        """Whether the other end does not read."""
        return len(self._unsent) > ENOUGH

    def first(self) -> feed.Settings | None:
        """The settings, which come first; ``None`` when the other end has gone. Raises FeedError."""
        self._socket.setblocking(True)
        while data := self._socket.recv(_READ):
            self._early += self._decoder.feed(data)
            if self._early:
                settings = self._early.pop(0)
                if not isinstance(settings, feed.Settings):
                    raise feed.FeedError(f"{type(settings).__name__} came before the settings")
                return settings
        return None

    def open(self, *, heard: Callable[[feed.Message], None], gone: Callable[[], None]) -> None:
        """Hear what comes from now on, and of the other end's end."""
        self._socket.setblocking(False)
        self._loop = asyncio.get_running_loop()
        for message in self._early:
            heard(message)
        self._heard, self._gone = heard, gone
        self._loop.add_reader(self._socket, self._receive)

    def tell(self, *messages: feed.Message) -> None:
        """Send them, now or as soon as the other end reads."""
        if self._loop is None:
            return
        is_waiting = bool(self._unsent)
        for message in messages:
            for line in feed.lines(message):
                self._unsent += line
        if not is_waiting:
            self._send()

    def close(self) -> None:
        if self._loop is not None:
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)
            self._loop = None
        self._unsent.clear()
        self._socket.close()

    def _receive(self) -> None:
        try:
            data = self._socket.recv(_READ)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._end()
            return
        try:
            for message in self._decoder.feed(data):
                self._heard(message)
        except feed.FeedError as error:
            log.error("what the other process says is not understood", extra={"fields": {"reason": str(error)}})
            self._end()

    def _send(self) -> None:
        if self._loop is None:
            return
        try:
            del self._unsent[: self._socket.send(self._unsent)]
        except BlockingIOError:
            pass
        except OSError:
            self._end()
            return
        if self._unsent:
            self._loop.add_writer(self._socket, self._send)
        else:
            self._loop.remove_writer(self._socket)

    def _end(self) -> None:
        if self._loop is not None:
            self.close()
            self._gone()
