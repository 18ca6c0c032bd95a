"""``GET /readyz``: 200 when ready, 503 else, with the mode and the step; served in the supervisor's own loop."""

from __future__ import annotations

import json
import select
import socket
import time
from collections.abc import Callable, Mapping

from krun_launch.loop import Loop

REQUEST_LIMIT = 8192  # bytes
PATIENCE = 5.0  # seconds for one request
CLIENTS = 32
PHRASES = {200: "OK", 404: "Not Found", 405: "Method Not Allowed", 503: "Service Unavailable"}


def answer(request: bytes, *, state: Mapping[str, object]) -> bytes:
    """The whole HTTP/1.1 answer to a request's head."""
    words = request.split(b"\r\n", 1)[0].split()
    method, path = (words[0], words[1].partition(b"?")[0]) if len(words) >= 2 else (b"", b"")
    if method not in (b"GET", b"HEAD"):
        status = 405
    elif path != b"/readyz":
        status = 404
    else:
        status = 200 if state["ready"] else 503
    body = json.dumps(state, sort_keys=True).encode() + b"\n" if status in (200, 503) else b""
    head = (
        f"HTTP/1.1 {status} {PHRASES[status]}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + (b"" if method == b"HEAD" else body)


class Status:
    """The listener and its clients; a client that is slow is closed, too many are not accepted."""

    def __init__(self, *, host: str, port: int, loop: Loop, state: Callable[[], Mapping[str, object]]) -> None:
        self._loop = loop
        self._state = state
        self._clients: dict[int, tuple[socket.socket, bytes, float]] = {}
        self._listener = socket.create_server((host, port), backlog=CLIENTS)
        self._listener.setblocking(False)
        loop.watch(self._listener.fileno(), select.POLLIN, self._accept)

    def close(self) -> None:
        for descriptor in list(self._clients):
            self._drop(descriptor)
        self._loop.unwatch(self._listener.fileno())
        self._listener.close()

    def _accept(self) -> None:
        try:
            client, _ = self._listener.accept()
        except OSError:
            return
        now = time.monotonic()
        for descriptor, (_, _, since) in list(self._clients.items()):
            if now - since > PATIENCE or len(self._clients) >= CLIENTS:
                self._drop(descriptor)
        client.setblocking(False)
        descriptor = client.fileno()
        self._clients[descriptor] = (client, b"", now)
        self._loop.watch(descriptor, select.POLLIN, lambda: self._read(descriptor))

    def _read(self, descriptor: int) -> None:
        client, request, since = self._clients[descriptor]
        try:
            data = client.recv(REQUEST_LIMIT)
            request += data
            if b"\r\n\r\n" in request:
                # A few hundred bytes into an empty socket buffer: it takes them whole.
                client.send(answer(request, state=self._state()))
            elif data and len(request) < REQUEST_LIMIT:
                self._clients[descriptor] = (client, request, since)
                return
        except BlockingIOError:
            return
        except OSError:
            pass
        self._drop(descriptor)

    def _drop(self, descriptor: int) -> None:
        self._loop.unwatch(descriptor)
        self._clients.pop(descriptor)[0].close()
