"""One of Google's APIs as a server on loopback: HTTPS, every request written down, and disturbed on demand."""

from __future__ import annotations

import contextlib
import http.server
import socket
import ssl
import tempfile
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Self

from krun_testbed.certificates import Pair, write
from krun_testbed.google_api_faults import Fault
from krun_testbed.google_api_messages import Answer, Api, Asked, Refused, error

HANDSHAKE = 10.0  # seconds
NOT_OURS = frozenset({"connection", "content-length", "transfer-encoding", "date", "server"})


class ApiServer:
    """The server, from ``start`` on. ``requests`` are those that came whole, ``faults`` what goes wrong, in order."""

    def __init__(self, *, name: str, api: Api, address: str, certificate: Pair, requests: list[Asked]) -> None:
        self.name = name
        self.faults: list[Fault] = []
        self.failures: list[str] = []  # of the stand-in itself
        self._api = api
        self._all = requests  # of all servers of a test, in order
        self._context = context(certificate)
        self._stopped = threading.Event()
        self._where = (address, 0)
        self._open()

    @property
    def requests(self) -> list[Asked]:
        """What came here, in order."""
        return [asked for asked in self._all if asked.api == self.name]

    def where(self) -> tuple[str, int]:
        """Host and port."""
        return self._where

    @property
    def url(self) -> str:
        """What a path is added to, with a slash at its end, as gcloud's overrides have it."""
        return f"https://{self._where[0]}:{self._where[1]}/"

    def start(self) -> Self:
        """Serve until ``stop``."""
        self._serve()
        return self

    def stop(self) -> None:
        """End it, and whatever still waits in it."""
        self._stopped.set()
        self._close()

    @contextlib.contextmanager
    def down(self) -> Iterator[None]:
        """Connections are refused, until the block ends."""
        self._close()
        try:
            yield
        finally:
            self._open()
            self._serve()

    @contextlib.contextmanager
    def certified(self, certificate: Pair) -> Iterator[None]:
        """Another certificate is shown: of another host, of another authority, expired."""
        true, self._context = self._context, context(certificate)
        try:
            yield
        finally:
            self._context = true

    def answer(self, asked: Asked) -> tuple[Answer, Fault]:
        """The answer, written down, and how it is disturbed."""
        self._all.append(asked)
        fault = next((fault for fault in self.faults if fault.takes(asked.path)), None) or Fault()
        if fault.wait:
            self._stopped.wait(fault.wait)
        if fault.answer is not None:
            return fault.answer, fault
        try:
            return self._api(asked), fault
        except Refused as refused:
            return refused.answer, fault
        except Exception:  # noqa: BLE001 - a request that nobody thought of; the test fails by it at its end
            self.failures.append(traceback.format_exc())
            return error(500, "Internal error encountered."), fault

    def pieces(self, body: bytes, *, fault: Fault) -> Iterator[bytes]:
        """The body, in one piece or byte by byte."""
        if not fault.pause:
            yield body
            return
        for index in range(len(body)):
            yield body[index : index + 1]
            if self._stopped.wait(fault.pause):
                return

    def secured(self, connected: socket.socket) -> ssl.SSLSocket:
        """The connection, after TLS."""
        connected.settimeout(HANDSHAKE)
        return self._context.wrap_socket(connected, server_side=True)

    def _open(self) -> None:
        handler = type("Handler", (_Handler,), {"api": self})
        self._server = _Server(self._where, handler)
        host, port = self._server.server_address[:2]
        self._where = (str(host), int(port))

    def _serve(self) -> None:
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()

    def _close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Server(http.server.ThreadingHTTPServer):
    """A client that does not like our certificate goes away in the middle of a handshake: that is no error of ours."""

    def handle_error(self, request: object, client_address: object) -> None:
        """Nothing: what was answered is what tests look at."""


class _Handler(http.server.BaseHTTPRequestHandler):
    """One connection. The names of the methods are http.server's."""

    api: ClassVar[ApiServer]
    protocol_version = "HTTP/1.1"
    timeout = 30.0  # seconds that an idle connection may stay

    def setup(self) -> None:
        # In the connection's own thread: a client that is slow at its handshake holds up nobody.
        self.request = self.api.secured(self.request)
        super().setup()

    def finish(self) -> None:
        super().finish()
        self.request.close()

    def do_GET(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        asked = Asked(
            api=self.api.name,
            method=self.command,
            target=self.path,
            headers={name.lower(): value for name, value in self.headers.items()},
            body=self.rfile.read(length),
        )
        answer, fault = self.api.answer(asked)
        if fault.cut == -1:
            self.close_connection = True
            return
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            if name.lower() not in NOT_OURS:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        for piece in self.api.pieces(answer.body if fault.cut is None else answer.body[: fault.cut], fault=fault):
            self.wfile.write(piece)
        self.close_connection = self.close_connection or fault.cut is not None

    do_POST = do_PUT = do_PATCH = do_DELETE = do_GET

    def log_message(self, format: str, *args: object) -> None:
        """Be quiet: requests are in ``ApiServer.requests``."""


def context(certificate: Pair) -> ssl.SSLContext:
    """A server's side of TLS."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "server.pem"
        write(path=path, content=certificate.chain + certificate.key)
        made.load_cert_chain(path)
    return made
