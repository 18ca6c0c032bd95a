"""One of hgate's workers alone: the test plays its control process, and owns the listening socket."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from hbone import shares
from hgate import feed
from hgate.routes import Route, read_routes
from krun_testbed import load_generator, processes, tunnels
from krun_testbed.processes import Running

PORT = 15442
HELLO = load_generator.hello("outbound_.8080_._.b.demo.svc.cluster.local")

Kind = TypeVar("Kind", bound=feed.Message)


class Worker:
    """The worker, and what it has said."""

    def __init__(self, running: Running, wire: socket.socket) -> None:
        self.running = running
        self.heard: list[feed.Message] = []
        self._wire = wire
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def tell(self, *messages: feed.Message) -> None:
        self._wire.sendall(b"".join(feed.encode(message) for message in messages))

    def wait_for(self, kind: type[Kind], fits: Callable[[Kind], bool] = lambda _: True) -> Kind:
        """Wait until it has said such a message."""
        deadline = time.monotonic() + processes.WAIT
        with self._changed:
            while True:
                for message in self.heard:
                    if isinstance(message, kind) and fits(message):
                        return message
                left = deadline - time.monotonic()
                assert left > 0, f"no {kind.__name__} in {self.heard!r}\n{self.running.said()}"
                self._changed.wait(left)

    def wait_for_count(self, **wanted: float) -> None:
        """Wait until it has told these numbers."""
        self.wait_for(feed.Counts, lambda told: all(told.values[name] == count for name, count in wanted.items()))

    def count(self, name: str) -> float:
        """The number that it has told last."""
        with self._changed:
            told = [message.values[name] for message in self.heard if isinstance(message, feed.Counts)]
        return told[-1] if told else 0.0

    def lines(self, message: str) -> list[dict[str, object]]:
        return tunnels.lines(self.running, message)

    def the_line(self, message: str) -> dict[str, object]:
        self.running.wait_for(f'"{message}"')
        (line,) = self.lines(message)
        return line

    def leave(self) -> None:
        """Its control process is gone."""
        self._wire.shutdown(socket.SHUT_RDWR)

    def _read(self) -> None:
        decoder = feed.Decoder()
        while True:
            try:
                data = self._wire.recv(65536)
            except OSError:
                return
            if not data:
                return
            with self._changed:
                self.heard += decoder.feed(data)
                self._changed.notify_all()


@contextlib.contextmanager
def listening(address: str, *, backlog: int = 4096) -> Iterator[socket.socket]:
    """The socket that workers share."""
    with socket.create_server((address, PORT), backlog=backlog) as listener:
        listener.setblocking(False)
        yield listener


@contextlib.contextmanager
def worker(
    listener: socket.socket,
    *routes: str | Route,
    settings: feed.Settings | None = None,
    wrapper: tuple[str, ...] = (),
    memory: int | None = None,
    number: int = 0,
) -> Iterator[Worker]:
    """A worker that accepts; ``wrapper`` is a command that starts it, such as prlimit with its flags.

    With ``memory`` it shares connections with those of other numbers who have it, too.
    """
    table = (route if isinstance(route, Route) else read_routes([route])[0] for route in routes)
    ours, theirs = socket.socketpair()
    with ours, contextlib.ExitStack() as stack:
        shared = stack.enter_context(shared_memory(1)) if memory is None else memory
        numbers = (listener.fileno(), theirs.fileno(), shared)
        words = [*map(str, numbers), str(number), "info", "json"]
        argv = [*wrapper, sys.executable, "-I", "-m", "hgate.worker", *words]
        running = stack.enter_context(processes.start(argv, pass_fds=numbers))
        theirs.close()
        one = Worker(running, ours)
        one.tell(settings or feed.Settings(token_header="x-serverless-authorization"))
        one.tell(feed.Routes(reset=True, set=tuple(table)))
        one.wait_for(feed.Ready)
        yield one


@contextlib.contextmanager
def shared_memory(count: int) -> Iterator[int]:
    """What so many workers share; its descriptor."""
    memory = os.memfd_create("workers")
    try:
        os.truncate(memory, shares.size(count))
        yield memory
    finally:
        os.close(memory)


def connect(address: str, *, hello: bytes = HELLO) -> socket.socket:
    """A client that has said its hello, for b.demo."""
    connected = tunnels.connect(address, PORT)
    connected.sendall(hello)
    return connected
