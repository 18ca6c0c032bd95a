"""An application of the testbed's meshes: says who it is and what reached it, as JSON; fails and waits when it is told.

``python -m krun_testbed.mesh_app --name NAME --port PORT`` runs it. /status/CODE answers with a status, /sleep/SECONDS
after a time, /flaky/KEY/TIMES with 503 that many times for a key, and then well; an upgrade to WebSocket is an echo.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from krun_testbed import mesh_sockets
from krun_testbed.mesh_network import Place


@dataclass(kw_only=True)
class App:
    """What came to it: each request as it is answered."""

    name: str
    port: int
    requests: list[dict[str, Any]] = field(default_factory=list)
    tries: Counter[str] = field(default_factory=Counter)


class Handler(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    # An answer is two packets: without this the second one waits for the first one's delayed acknowledgement, 40 ms.
    disable_nagle_algorithm = True
    app = App(name="app", port=0)

    def do_GET(self) -> None:
        if self.headers.get("upgrade", "").lower() == "websocket":
            self._echo()
            return
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        said = {
            "name": self.app.name,
            "method": self.command,
            "path": self.path,
            "protocol": self.request_version,
            "client": self.client_address[0],
            # All values of a header that came twice: a forged one must not hide behind the true one.
            "headers": {name.lower(): ", ".join(self.headers.get_all(name, [])) for name in self.headers},
            "body": body.decode("latin-1"),
        }
        self.app.requests.append(said)
        status = 200
        match self.path.partition("?")[0].split("/")[1:]:
            case ["status", code]:
                status = int(code)
            case ["sleep", seconds]:
                time.sleep(float(seconds))
            case ["flaky", key, times]:
                self.app.tries[key] += 1
                status = 503 if self.app.tries[key] <= int(times) else 200
        answer = json.dumps(said).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_POST = do_PUT = do_DELETE = do_GET

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def _echo(self) -> None:
        self.send_response(101)
        self.send_header("upgrade", "websocket")
        self.send_header("connection", "upgrade")
        self.end_headers()
        self.close_connection = True
        while data := self.connection.recv(65536):
            self.connection.sendall(data)


class Server(ThreadingHTTPServer):
    """Serves by a socket that is there already."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, listening: socket.socket, app: App) -> None:
        handler = type("Handler", (Handler,), {"app": app})
        super().__init__(listening.getsockname(), handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listening

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: a client that is gone is no matter of the application."""


@contextlib.contextmanager
def app(where: Place, *, name: str, port: int = 8080, address: str = "0.0.0.0") -> Iterator[App]:
    """It runs in this process, and listens in the place."""
    made = App(name=name, port=port)
    with _serving(Server(where.listener(address, port), made)):
        yield made


@contextlib.contextmanager
def talker(where: Place, *, port: int, greeting: bytes, address: str = "0.0.0.0") -> Iterator[None]:
    """A server of raw TCP that speaks first, and then says back what it hears, in capitals."""

    def serve(connected: socket.socket) -> None:
        connected.sendall(greeting)
        while data := connected.recv(65536):
            connected.sendall(data.upper())

    with mesh_sockets.serving(where.listener(address, port), serve):
        yield


@contextlib.contextmanager
def _serving(server: Server) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--address", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--name", default="app")
    given = parser.parse_args()
    server = Server(socket.create_server((given.address, given.port)), App(name=given.name, port=given.port))
    print("app listens", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
