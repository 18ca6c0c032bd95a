"""A door before a real API server: requests go through as they are, or meet what a test asks for.

It ends TLS and opens its own, so that it can answer 410 or 429 in the server's place, hold an answer back, or cut a
watch off in the middle of an event.
"""

from __future__ import annotations

import contextlib
import http.client
import http.server
import json
import re
import socket
import ssl
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, cast

from krun_testbed.certificates import Authority, write
from krun_testbed.kubernetes import Kubernetes

PATIENCE = 600.0  # seconds that an answer is waited for: a watch is silent for long
HOP = frozenset({"connection", "transfer-encoding", "content-length", "keep-alive"})


@dataclass(kw_only=True)
class Fault:
    """What a request meets whose ``METHOD path`` the pattern finds; ``times``: so often, then no more.

    One of: ``status``, an answer in the server's place; ``silent``, none until the door lets go; ``cut_after``, so many
    bytes of the answer, and then the end.
    """

    pattern: str
    times: int = 1_000_000
    status: int = 0
    reason: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    silent: bool = False
    cut_after: int = -1
    met: int = 0


class Door:
    """``with`` opens and closes it. ``faults`` may be changed at any time; ``asked`` is every request so far."""

    def __init__(self, *, kubernetes: Kubernetes, address: str) -> None:
        self.authority = Authority(name="door")
        self.faults: list[Fault] = []
        self.asked: list[str] = []
        self._kubernetes = kubernetes
        self._address = address
        self._port = 0
        self._server: _Server | None = None
        self._lock = threading.Lock()
        self.let_go = threading.Event()

    @property
    def url(self) -> str:
        return f"https://{self._address}:{self._port}"

    def __enter__(self) -> Door:
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def open(self) -> None:
        """Let requests in, at the same port as before."""
        self.let_go = threading.Event()
        server = _Server((self._address, self._port), _Handler, door=self)
        self._port = server.server_address[1]
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        self._server = server

    def close(self) -> None:
        """Let nobody in any more, and cut off who is inside."""
        self.let_go.set()
        server, self._server = self._server, None
        if server:
            server.shutdown()
            server.server_close()
            server.cut()

    def count(self, pattern: str) -> int:
        """How many requests were made whose ``METHOD path`` the pattern finds."""
        return sum(bool(re.search(pattern, asked)) for asked in list(self.asked))

    def cut(self) -> None:
        """Cut off all connections, and let new ones in."""
        if self._server:
            self._server.cut()

    def fault(self, asked: str) -> Fault | None:
        """What this request meets."""
        with self._lock:
            self.asked.append(asked)
            for fault in self.faults:
                if fault.met < fault.times and re.search(fault.pattern, asked):
                    fault.met += 1
                    return fault
        return None

    def upstream(self) -> http.client.HTTPSConnection:
        """A connection to the server itself."""
        host, port = self._kubernetes.where()
        context = ssl.create_default_context(cadata=self._kubernetes.root.decode())
        return http.client.HTTPSConnection(host, port, timeout=PATIENCE, context=context)


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, where: tuple[str, int], handler: type[_Handler], *, door: Door) -> None:
        self.door = door
        self._open: set[socket.socket] = set()
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        with tempfile.TemporaryDirectory(prefix="krun-door-") as folder:
            pair = door.authority.server(hosts=(where[0],))
            write(path=Path(folder) / "door.pem", content=pair.chain + pair.key)
            self._context.load_cert_chain(Path(folder) / "door.pem")
        super().__init__(where, handler)

    def finish_request(self, request: object, client_address: Any) -> None:
        connected = cast(socket.socket, request)
        with contextlib.suppress(OSError):
            connected.settimeout(PATIENCE)
            with self._context.wrap_socket(connected, server_side=True) as secure:
                self._open.add(secure)
                try:
                    _Handler(secure, client_address, self)
                finally:
                    self._open.discard(secure)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes is none of ours."""

    def cut(self) -> None:
        for connected in list(self._open):
            with contextlib.suppress(OSError):
                connected.shutdown(socket.SHUT_RDWR)


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize: ClassVar[int] = 0

    def _serve(self) -> None:
        door = cast(_Server, self.server).door
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = door.fault(f"{self.command} {self.path}")
        if fault and fault.status:
            self._refuse(fault)
        elif fault and fault.silent:
            door.let_go.wait()
            self.close_connection = True
        else:
            self._pass(door, body, cut_after=fault.cut_after if fault else -1)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _serve

    def _refuse(self, fault: Fault) -> None:
        said = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": fault.status}
        text = json.dumps({**said, "reason": fault.reason, "message": "so says the door"}).encode()
        self.send_response(fault.status)
        for name, value in {**fault.headers, "Content-Type": "application/json"}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def _pass(self, door: Door, body: bytes, *, cut_after: int) -> None:
        with contextlib.closing(door.upstream()) as upstream:
            headers = {name: value for name, value in self.headers.items() if name.lower() not in HOP}
            upstream.request(self.command, self.path, body=body or None, headers=headers)
            answer = upstream.getresponse()
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in HOP:
                    self.send_header(name, value)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            # A watch has no end of its own: when we are closed, what comes next finds nobody.
            while data := answer.read1(65536):
                if cut_after >= 0:
                    data = data[:cut_after]
                    cut_after -= len(data)
                self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data) if data else b"")
                if cut_after == 0:
                    self.close_connection = True
                    return
            self.wfile.write(b"0\r\n\r\n")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextlib.contextmanager
def door(kubernetes: Kubernetes, *, address: str) -> Iterator[Door]:
    """One that is open until the block ends."""
    with Door(kubernetes=kubernetes, address=address) as made:
        yield made
