"""A worker: serves connections by what the control process tells it, and knows nothing else of the world.

``python -m hgate.worker LISTENER FEED SHARES NUMBER LEVEL FORMAT``: three descriptors that it inherits, which of the
workers it is, and how it logs. When the control process is gone, it goes on with the routes and tokens that it has.
SIGTERM drains, a second one ends at once.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import mmap
import os
import signal
import socket
import sys

from hbone import sockets, stop
from hbone.acceptor import OWN_FILES, raise_file_limit
from hbone.client import Client
from hbone.client import Settings as ClientSettings
from hbone.doorway import Doorway
from hbone.poller import of_loop
from hbone.shares import Shares
from hbone.tokens import Source
from hbone.urls import parse_address
from hgate import errors, feed, log
from hgate.connection import ENDED_NOW
from hgate.counts import Counts
from hgate.gate import Gate
from hgate.routes import RouteTable
from hgate.tokens import Tokens
from hgate.wire import Wire

TELL = 1.0  # seconds between two reports of what was done
MAX_OPEN = 2**16
SLACK = 8  # connections that a worker may have more than another: fewer would be more work than they are worth

logger = logging.getLogger(__name__)


class Worker:
    """The worker; ``run`` returns when it is drained."""

    def __init__(
        self,
        *,
        listener: socket.socket,
        shares: Shares,
        wire: Wire,
        settings: feed.Settings,
        group: asyncio.TaskGroup,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        poller = of_loop()
        self._wire = wire
        self._counts = Counts()
        self._told: dict[str, float] = {}
        self._table = RouteTable()
        self._tokens = Tokens(ask=wire.tell)
        self._client = Client(settings=client_settings(settings), group=group)
        self._gate = Gate(
            poller=poller,
            table=self._table,
            tokens=self._tokens,
            client=self._client,
            counts=self._counts,
            hello_timeout=settings.hello_timeout,
            start=group.create_task,
            ended=self._ended,
        )
        # Two files a connection, when it is led on as it is; the others wait in the kernel, or go to other workers.
        self._doorway = Doorway(
            listener,
            room=max(1, min(MAX_OPEN, (raise_file_limit() - OWN_FILES) // 2)),
            count=lambda: len(self._gate),
            arrived=self._gate.take,
            shares=shares,
        )
        self._is_draining = False
        self._drained = asyncio.Event()

    async def run(self) -> None:
        """Serve until drained."""
        self._loop.add_signal_handler(signal.SIGTERM, self._signalled)
        self._loop.add_signal_handler(signal.SIGINT, self._signalled)
        self._wire.open(heard=self._heard, gone=self._alone)
        if not self._is_draining:  # that may have been the next that it heard
            self._doorway.open()
            self._wire.tell(feed.Ready())
        self._tell_counts()
        await self._drained.wait()
        await self._client.close()
        self._tell_counts()
        self._wire.tell(feed.Drained())

    def _heard(self, message: feed.Message) -> None:
        match message:
            case feed.Routes():
                self._routes(message)
            case feed.Token() | feed.NoToken():
                self._tokens.heard(message)
            case feed.Look():
                self._doorway.look()
            case feed.Drain(now=now):
                self._drain()
                if now:
                    self._gate.end_now(ENDED_NOW)

    def _routes(self, message: feed.Routes) -> None:
        if message.reset:
            self._table.clear()
        self._table.remove(message.remove)
        for route in message.set:
            try:
                self._table.set([route])
            except ValueError as error:  # the control process has checked it: another version's idea of a URL
                fields = {"url": route.url, "reason": str(error)}
                logger.error("a route that cannot be read", extra={"fields": fields})

    def _signalled(self) -> None:
        if self._is_draining:
            self._gate.end_now(ENDED_NOW)
        self._drain()

    def _drain(self) -> None:
        if not self._is_draining:
            self._is_draining = True
            self._doorway.close_after_all()
            self._ended()

    def _ended(self) -> None:
        """A connection is gone."""
        self._doorway.left()
        if self._is_draining and not len(self._gate):
            self._drained.set()

    def _alone(self) -> None:
        if not self._is_draining:
            logger.warning("the control process is gone: routes and tokens stay as they are")
        self._tokens.is_alone()

    def _tell_counts(self) -> None:
        sent, received = self._gate.moved
        values = self._counts.values(
            sent=sent,
            received=received,
            open_hellos=len(self._gate.hellos),
            token_waiting=self._tokens.waiting,
            routes=len(self._table),
        )
        if not self._wire.is_crowded:
            self._wire.tell(feed.Counts(values=values) if values != self._told else feed.Well())
            self._told = values
        # Another worker may hang that was woken for somebody.
        self._doorway.look()
        if not self._drained.is_set():
            self._loop.call_later(TELL, self._tell_counts)


def client_settings(settings: feed.Settings) -> ClientSettings:
    """How tunnels are opened. A worker has no source of tokens."""
    return ClientSettings(
        token_source=Source(),
        token_header=settings.token_header,
        ca_file=settings.ca_file or None,
        connect_to=parse_address(settings.connect_to) if settings.connect_to else None,
    )


async def _serve(listener: socket.socket, shares: Shares, wire: Wire, settings: feed.Settings) -> int:
    async with asyncio.TaskGroup() as group:
        worker = Worker(listener=listener, shares=shares, wire=wire, settings=settings, group=group)
        # What there is now stays: the collector need not look through it again and again.
        gc.collect()
        gc.freeze()
        await worker.run()
    return errors.Exit.OK


def main(arguments: list[str]) -> int:
    """The process: its exit status is 0 when it is drained."""
    listener, control, memory, number, level, style = arguments
    log.configure(tool="hgate", level=level, style=style)
    wire = Wire(socket.socket(fileno=int(control)))
    settings = wire.first()
    if settings is None:
        return errors.Exit.OK  # the control process has changed its mind
    accepting = socket.socket(fileno=int(listener))
    accepting.setblocking(False)
    sockets.tune(accepting)  # what is accepted has it from there
    shares = Shares(mmap.mmap(int(memory), 0), number=int(number), slack=SLACK)
    os.close(int(memory))
    return stop.run(_serve(accepting, shares, wire, settings))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
