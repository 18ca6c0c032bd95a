"""Applications that know nothing of a mesh, for tests and the demo: ``python -m krun_testbed.apps --help``.

GET /env answers its environment, /headers the request's headers, /sleep/SECONDS an answer that takes time,
/exit/STATUS ends the process, all else a greeting.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def argv(*, address: str, name: str = "app", listen_after: float = 0.0, port: int | None = None) -> list[str]:
    """The command line of the HTTP application; its port is ``PORT`` unless one is given."""
    command = [sys.executable, "-m", "krun_testbed.apps", "--address", address, "--name", name]
    command += ["--listen-after", str(listen_after)]
    return command if port is None else [*command, "--port", str(port)]


class Handler(BaseHTTPRequestHandler):
    """One request of a plain HTTP/1.1 server."""

    protocol_version = "HTTP/1.1"
    name = "app"

    def do_GET(self) -> None:
        _, word, *rest = f"{self.path}/".split("/")
        match word:
            case "env":
                self._answer(json.dumps(dict(os.environ)))
            case "headers":
                names = sorted({name.lower() for name in self.headers})
                # All values of a header that came twice: a forged one must not hide behind the true one.
                self._answer(json.dumps({name: ", ".join(self.headers.get_all(name, [])) for name in names}))
            case "sleep":
                print("sleeping", flush=True)
                time.sleep(float(rest[0]))
                self._answer(f"slept {rest[0]}\n")
            case "exit":
                self._answer("bye\n")
                os._exit(int(rest[0]))
            case _:
                self._answer(f"hello from {self.name}\n")

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: the tests read what the tools say."""

    def _answer(self, text: str) -> None:
        body = text.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()


def main() -> None:
    """Serve until SIGTERM, then end with status 0, after the requests that are under way."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--address", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=int(os.environ.get("PORT") or 8080))
    parser.add_argument("--name", default="app")
    parser.add_argument("--listen-after", type=float, default=0.0, metavar="SECONDS")
    given = parser.parse_args()
    print("app started", flush=True)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, frame: stop.set())
    if stop.wait(given.listen_after):
        return
    Handler.name = given.name
    with ThreadingHTTPServer((given.address, given.port), Handler) as server:
        print("app listens", flush=True)
        serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        serving.start()
        stop.wait()
        print("app stops", flush=True)
        server.shutdown()


if __name__ == "__main__":
    main()
