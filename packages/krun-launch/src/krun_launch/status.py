"""``/readyz``, ``/metrics`` and ``/quitquitquit``, served in the supervisor's own loop."""

from __future__ import annotations

import json
import select
import socket
import time
from collections.abc import Callable, Mapping

from krun_launch.loop import Loop
from krun_launch.record import Record

REQUEST_LIMIT = 8192  # bytes
PATIENCE = 5.0  # seconds for one request
CLIENTS = 32
PHRASES = {200: "OK", 403: "Forbidden", 404: "Not Found", 405: "Method Not Allowed", 503: "Service Unavailable"}
JSON, TEXT = "application/json", "text/plain; version=0.0.4; charset=utf-8"
QUIT = b"/quitquitquit"


class Pages(Record):
    """What is served: the state as JSON, the metrics as text, and what ends all."""

    state: Callable[[], Mapping[str, object]]
    metrics: Callable[[], str]
    end: Callable[[], None]


def answer(request: bytes, *, pages: Pages, is_local: bool) -> bytes:
    """The whole HTTP/1.1 answer to a request's head; who asks for the end has it begin.

    Args:
        request: the head.
        pages: what is served.
        is_local: the client is on this machine, in our network namespace.
    """
    words = request.split(b"\r\n", 1)[0].split()
    method, path = (words[0], words[1].partition(b"?")[0]) if len(words) >= 2 else (b"", b"")
    if path == QUIT:
        return _quit(request, method=method, end=pages.end, is_local=is_local)
    if method not in (b"GET", b"HEAD"):
        return _http(405)
    if path == b"/readyz":
        state = pages.state()
        body = json.dumps(state, sort_keys=True).encode() + b"\n"
        found = _http(200 if state["ready"] else 503, body)
    elif path == b"/metrics":
        found = _http(200, pages.metrics().encode(), kind=TEXT)
    else:
        return _http(404)
    return found.partition(b"\r\n\r\n")[0] + b"\r\n\r\n" if method == b"HEAD" else found


def _quit(request: bytes, *, method: bytes, end: Callable[[], None], is_local: bool) -> bytes:
    # A browser on this machine, led here by a page of somebody else's, sends Origin with a POST.
    if not is_local or b"\r\norigin:" in request.lower():
        return _http(403)
    if method != b"POST":
        return _http(405)
    end()
    return _http(200)


def _http(status: int, body: bytes = b"", *, kind: str = JSON) -> bytes:
    head = (
        f"HTTP/1.1 {status} {PHRASES[status]}\r\nContent-Type: {kind}\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body


class Status:
    """The listener and its clients; a client that is slow is closed, too many are not accepted."""

    def __init__(self, *, host: str, port: int, loop: Loop, pages: Pages) -> None:
        self._loop = loop
        self._pages = pages
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
                is_local = client.getpeername()[0].startswith("127.")
                # A few kilobytes into an empty socket buffer: it takes them whole.
                client.send(answer(request.partition(b"\r\n\r\n")[0], pages=self._pages, is_local=is_local))
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
