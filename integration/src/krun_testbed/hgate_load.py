"""Constant load of a pod's application: clients that keep their connections, and count what fails."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from krun_testbed.mesh_network import Place

TIMEOUT = 20.0  # seconds for one request
PAUSE = 0.01  # seconds between two requests of one client


@dataclass(kw_only=True)
class Load:
    """What came of it so far; a failure is its time since the start and a text."""

    done: int = 0
    slowest: float = 0.0  # seconds
    failures: list[tuple[float, str]] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def note(self, began: float, failure: str = "") -> None:
        """One request has ended."""
        now = time.monotonic()
        with self._lock:
            self.done += 1
            self.slowest = max(self.slowest, now - began)
            if failure:
                self.failures.append((round(now - self.started, 2), failure))


@contextlib.contextmanager
def constant(place: Place, url: str, *, to: str, paths: Sequence[str] = ("/",), clients: int = 4) -> Iterator[Load]:
    """So many clients, each of which asks for one path after the other until the block ends, then ends its last one."""
    load = Load()
    ended = threading.Event()
    parts = urlsplit(url)
    threads = [
        threading.Thread(
            target=_client,
            kwargs={
                "load": load,
                "place": place,
                "where": (to, parts.port or 80),
                "host": parts.netloc,
                "paths": [*paths[number % len(paths) :], *paths[: number % len(paths)]],
                "ended": ended,
            },
            daemon=True,
        )
        for number in range(clients)
    ]
    for thread in threads:
        thread.start()
    try:
        yield load
    finally:
        ended.set()
        for thread in threads:
            thread.join(2 * TIMEOUT)


def _client(
    *, load: Load, place: Place, where: tuple[str, int], host: str, paths: Sequence[str], ended: threading.Event
) -> None:
    connection: http.client.HTTPConnection | None = None
    for path in itertools.cycle(paths):
        if ended.wait(PAUSE):
            break
        began = time.monotonic()
        try:
            if connection is None:
                connection = http.client.HTTPConnection(host, timeout=TIMEOUT)
                connection.sock = place.connect(*where, timeout=TIMEOUT)
                connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.request("GET", path)
            answer = connection.getresponse()
            body = answer.read()
            failure = "" if answer.status == 200 else f"{path}: {answer.status} {body[:200].decode(errors='replace')}"
            closes = answer.will_close
        except (OSError, http.client.HTTPException) as error:
            failure, closes = f"{path}: {type(error).__name__}: {error}", True
        load.note(began, failure)
        if closes and connection is not None:
            connection.close()
            connection = None
    if connection is not None:
        connection.close()
