#!/usr/bin/python3
"""An application in a container that knows nothing of a mesh: a plain HTTP/1.1 server, and plain clients on request.

Every answer is JSON. Variables: PORT, ADDRESS (127.0.0.1), NAME, STATUS (what it ends with after SIGTERM).

    GET /                     its name, its user and groups, the request's headers
    GET /slow/SECONDS         the same, after a while; says "slow begins" and "slow ends" on stdout
    GET /read?path=F          whether it can read F, and why not
    GET /fetch?url=U          what a plain client gets from U (urllib: it heeds HTTP_PROXY, as most clients do)
    GET /tcp?to=H:P&send=T    what a plain TCP client reads until a line ends, after it has sent T (if any)
    GET /name?name=N          the addresses of N, by the C library
    GET /exit/STATUS          answers, and ends

With an argument it is a client instead: ``app PATH`` prints what the one in this container answers.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TIMEOUT = 20.0


def say(text: str) -> None:
    """One line on stdout, at once, and whole also when several threads speak."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def read(path: str) -> dict[str, object]:
    try:
        with open(path, "rb") as file:  # noqa: PTH123 (a plain program's way)
            return {"readable": True, "size": len(file.read(1 << 20))}
    except OSError as error:
        return {"readable": False, "why": os.strerror(error.errno or 0)}


def fetch(url: str) -> dict[str, object]:
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as response:
            return {"status": response.status, "body": response.read().decode(errors="replace")}
    except urllib.error.HTTPError as error:
        with error:
            return {"status": error.code, "body": error.read().decode(errors="replace")}
    except OSError as error:
        return {"status": 0, "why": str(error)}


def tcp(to: str, send: str) -> dict[str, object]:
    host, _, port = to.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=TIMEOUT) as connection:
            connection.sendall(send.encode())
            said = connection.makefile("rb").readline()
            return {"peer": connection.getpeername()[0], "said": said.decode(errors="replace")}
    except OSError as error:
        return {"why": str(error)}


def name(name: str) -> dict[str, object]:
    try:
        found = socket.getaddrinfo(name, None, socket.AF_INET, socket.SOCK_STREAM)
        return {"addresses": sorted({str(entry[4][0]) for entry in found})}
    except OSError as error:
        return {"why": str(error)}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        with self.server.busy:  # type: ignore[attr-defined]
            self.respond()

    def respond(self) -> None:
        parts = urllib.parse.urlsplit(self.path)
        asked = dict(urllib.parse.parse_qsl(parts.query))
        _, word, *rest = [*parts.path.split("/"), ""]
        ends = None
        match word:
            case "slow":
                say("slow begins")
                time.sleep(float(rest[0]))
                answer = self.seen()
                say("slow ends")
            case "read":
                answer = read(asked["path"])
            case "fetch":
                answer = fetch(asked["url"])
            case "tcp":
                answer = tcp(asked["to"], asked.get("send", ""))
            case "name":
                answer = name(asked["name"])
            case "exit":
                answer, ends = {"bye": rest[0]}, int(rest[0])
            case _:
                answer = self.seen()
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()
        if ends is not None:
            os._exit(ends)

    def seen(self) -> dict[str, object]:
        return {
            "name": os.environ.get("NAME", "app"),
            "pid": os.getpid(),
            "ids": [os.getuid(), os.getgid()],
            "groups": sorted(os.getgroups()),
            "path": self.path,
            # All values of a header that came twice: a forged one must not hide behind the true one.
            "headers": {key.lower(): ", ".join(self.headers.get_all(key, [])) for key in self.headers},
        }

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing for each request."""


class Busy:
    """How many requests are under way, as a context; ``wait`` until there is none."""

    def __init__(self) -> None:
        self._count = 0
        self._changed = threading.Condition()

    def __enter__(self) -> None:
        with self._changed:
            self._count += 1

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._count -= 1
            self._changed.notify_all()

    def wait(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._count == 0)


class Server(ThreadingHTTPServer):
    """Waits at its end for the requests that are under way, and not for connections that wait for the next."""

    request_queue_size = 128
    busy = Busy()


def ask(path: str) -> None:
    """Ask the application of this container, past any proxy."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://127.0.0.1:{os.environ.get('PORT') or 8080}{path}", timeout=60) as response:
        say(response.read().decode())


def main() -> None:
    if len(sys.argv) > 1:
        return ask(sys.argv[1])
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    address = os.environ.get("ADDRESS", "127.0.0.1"), int(os.environ.get("PORT") or 8080)
    server = Server(address, Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    say("app listens")
    stop.wait()
    say("app stops")
    server.shutdown()
    server.busy.wait()
    sys.exit(int(os.environ.get("STATUS", "0")))


if __name__ == "__main__":
    main()
