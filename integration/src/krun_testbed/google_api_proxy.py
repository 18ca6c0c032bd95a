"""A proxy for CONNECT that leads Google's true host names to the stand-ins, and refuses all others.

With it (HTTPS_PROXY) a client needs no overrides: it dials ``container.googleapis.com`` or ``gke-….gke.goog``, and
verifies those names.
"""

from __future__ import annotations

import fnmatch
import http.server
import select
import socket
import threading
from collections.abc import Callable
from types import TracebackType
from typing import ClassVar, Self

Address = tuple[str, int]
TIMEOUT = 20.0  # seconds


class Proxy:
    """The proxy, from ``with`` on. ``routes`` maps HOST:PORT, with * for any, to where it is; ``asked`` are names."""

    def __init__(self, *, address: str, routes: dict[str, Callable[[], Address]]) -> None:
        self.asked: list[str] = []
        self.routes = routes
        self._server = http.server.ThreadingHTTPServer((address, 0), type("Handler", (_Handler,), {"proxy": self}))
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})

    @property
    def url(self) -> str:
        """For HTTPS_PROXY."""
        host, port = self._server.server_address[:2]
        return f"http://{host!s}:{port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def where(self, name: str) -> Address | None:
        """The stand-in of a name."""
        self.asked.append(name)
        return next((found() for pattern, found in self.routes.items() if fnmatch.fnmatchcase(name, pattern)), None)


class _Handler(http.server.BaseHTTPRequestHandler):
    """One connection. The names of the methods are http.server's."""

    proxy: ClassVar[Proxy]

    def do_CONNECT(self) -> None:
        where = self.proxy.where(self.path)
        if where is None:
            self.send_error(403, "Not one of the names that lead somewhere")
            return
        try:
            upstream = socket.create_connection(where, timeout=TIMEOUT)
        except OSError:
            self.send_error(502, "Connection refused")
            return
        with upstream:
            self.send_response(200, "Connection established")
            self.end_headers()
            _relay(self.connection, upstream)
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        """Be quiet: names are in ``Proxy.asked``."""


def _relay(one: socket.socket, other: socket.socket) -> None:
    """Bytes in both directions until either side ends."""
    to = {one: other, other: one}
    while True:
        ready, _, _ = select.select(list(to), [], [], TIMEOUT)
        if not ready:
            return
        for source in ready:
            try:
                data = source.recv(65536)
                if not data:
                    return
                to[source].sendall(data)
            except OSError:
                return
