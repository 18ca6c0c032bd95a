"""An HTTP/1.1 application that notes every byte it is sent, and answers as its path asks. Plain Python: no library.

``python recorder.py --address 127.0.0.1 --port 8080`` prints one JSON line for each request that came whole, and one
for each that did not. The query says how to answer: size, chunked, trailers, status, hint (103 first), continue (100
first), wait (until somebody asks for /go), events, echo (as it comes), early (before the body is read), cut (after so
many bytes), raw (these bytes), leave (close without a word), close (after it, unannounced; close=next: when the next
request has begun to come, of which nothing is read). A note has the number of the connection.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import itertools
import json
import socket
import sys
import threading
from collections.abc import Iterator
from urllib.parse import parse_qs, unquote_to_bytes, urlsplit

PIECE = bytes(range(256)) * 256  # what bodies are made of
READ = 65536
LINE = threading.Lock()
NUMBERS = itertools.count(1)


def pattern(size: int) -> Iterator[bytes]:
    """A body of that size, in pieces."""
    for start in range(0, size, len(PIECE)):
        yield PIECE[: min(len(PIECE), size - start)]


def digest(size: int) -> str:
    """The SHA-256 of that body."""
    found = hashlib.sha256()
    for piece in pattern(size):
        found.update(piece)
    return found.hexdigest()


class Ended(Exception):
    """The other side has closed within a request."""


class Gate:
    """Lets those pass who wait for /go, one for each."""

    def __init__(self) -> None:
        self._passes = threading.Semaphore(0)

    def open(self) -> None:
        self._passes.release()

    def wait(self) -> None:
        self._passes.acquire(timeout=30)


class Reader:
    """Bytes of a connection, kept as they came."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._buffer = b""
        self.seen = 0
        self.number = next(NUMBERS)

    def line(self) -> bytes:
        while b"\n" not in self._buffer:
            self._more()
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line + b"\n"

    def some(self, most: int) -> bytes:
        if not self._buffer:
            self._more()
        data, self._buffer = self._buffer[:most], self._buffer[most:]
        return data

    def _more(self) -> None:
        data = self._socket.recv(READ)
        if not data:
            raise Ended
        self.seen += len(data)
        self._buffer += data


class Request:
    """One request: its head as it came, and its body when that is asked for."""

    def __init__(self, reader: Reader) -> None:
        lines = [reader.line()]
        while lines[-1] not in (b"\r\n", b"\n"):
            lines.append(reader.line())
        self.head = b"".join(lines)
        self.method, self.target = (str(word, "latin-1") for word in lines[0].split(b" ")[:2])
        self.headers = [self._field(line) for line in lines[1:-1]]
        self.trailers: list[tuple[str, str]] = []
        self._reader = reader
        self.length = 0
        self.is_whole = False
        self.connection = reader.number
        self._digest = hashlib.sha256()

    @staticmethod
    def _field(line: bytes) -> tuple[str, str]:
        name, _, value = str(line, "latin-1").partition(":")
        return name, value.strip()

    def get(self, name: str) -> str:
        return next((value for found, value in self.headers if found.lower() == name), "")

    def body(self) -> Iterator[bytes]:
        """The body in pieces, as they come."""
        pieces = self._chunks() if "chunked" in self.get("transfer-encoding") else self._measured()
        for piece in pieces:
            self._digest.update(piece)
            self.length += len(piece)
            yield piece
        self.is_whole = True

    def drop(self) -> None:
        for _ in self.body():
            pass

    def _measured(self) -> Iterator[bytes]:
        left = int(self.get("content-length") or 0)
        while left:
            piece = self._reader.some(left)
            left -= len(piece)
            yield piece

    def _chunks(self) -> Iterator[bytes]:
        while left := int(self._reader.line().split(b";")[0], 16):
            while left:
                piece = self._reader.some(left)
                left -= len(piece)
                yield piece
            self._reader.line()
        while (line := self._reader.line()) not in (b"\r\n", b"\n"):
            self.trailers.append(self._field(line))

    def note(self) -> dict[str, object]:
        return {
            "method": self.method,
            "target": self.target,
            "head": str(self.head, "latin-1"),
            "headers": self.headers,
            "trailers": self.trailers,
            "length": self.length,
            "sha256": self._digest.hexdigest(),
            "whole": self.is_whole,
            "connection": self.connection,
        }


class Conversation:
    """One connection: requests until it is closed."""

    def __init__(self, connected: socket.socket, gate: Gate) -> None:
        self._socket = connected
        self._gate = gate
        self._reader = Reader(connected)
        self._leaves_next = False

    def run(self) -> None:
        while True:
            before = self._reader.seen
            if self._leaves_next:
                self._socket.recv(1, socket.MSG_PEEK)
                return
            try:
                request = Request(self._reader)
            except (Ended, OSError):
                if self._reader.seen > before:
                    say({"broken": True})
                return
            try:
                goes_on = self._answer(request)
            except (Ended, OSError):
                say(request.note())
                return
            say(request.note())
            if not goes_on:
                return

    def _answer(self, request: Request) -> bool:
        parts = urlsplit(request.target)
        ask = {name: values[-1] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
        if parts.path == "/go":
            self._gate.open()
        if "leave" in ask:
            return False
        self._inform(request, ask)
        if "echo" in ask:
            return self._echo(request)
        if "wait" in ask:
            say({"waiting": request.target})
            self._gate.wait()
        if "early" not in ask:
            request.drop()
        if "events" in ask:
            return self._events(int(ask["events"]))
        if "raw" in ask:
            self._send(unquote_to_bytes(ask["raw"]))
            return False
        self._plain(request, ask)
        if ask.get("early") == "close":
            self._socket.shutdown(socket.SHUT_WR)
        if "early" in ask:
            request.drop()
        self._leaves_next = ask.get("close") == "next"
        is_closed = ask.get("close", "next") != "next"
        return not is_closed and "cut" not in ask and ask.get("early") != "close"

    def _inform(self, request: Request, ask: dict[str, str]) -> None:
        if "continue" in ask and request.get("expect"):
            self._send(b"HTTP/1.1 100 Continue\r\n\r\n")
        if "hint" in ask:
            self._send(b"HTTP/1.1 103 Early Hints\r\nlink: </style.css>; rel=preload\r\n\r\n")

    def _plain(self, request: Request, ask: dict[str, str]) -> None:
        if "size" in ask:
            size, body = int(ask["size"]), pattern(int(ask["size"]))
        else:
            text = json.dumps(request.note()).encode()
            size, body = len(text), iter((text,))
        is_chunked = bool({"chunked", "trailers"} & set(ask))
        lines = [f"HTTP/1.1 {ask.get('status', '200')} {ask.get('reason', 'Fine')}"]
        lines += ["Transfer-Encoding: chunked"] if is_chunked else [f"Content-Length: {size}"]
        lines += ask["headers"].split("|") if "headers" in ask else []
        self._send("\r\n".join([*lines, "", ""]).encode("latin-1"))
        if request.method == "HEAD" or ask.get("status") in ("204", "304"):
            return
        left = int(ask["cut"]) if "cut" in ask else size
        for piece in body:
            self._chunk(piece[:left]) if is_chunked else self._send(piece[:left])
            left -= len(piece)
            if left <= 0 and "cut" in ask:
                return
        if is_chunked:
            trailer = b"x-sum: 42\r\nauthorization: no\r\n" if "trailers" in ask else b""
            self._send(b"0\r\n" + trailer + b"\r\n")

    def _events(self, count: int) -> bool:
        """Server-sent events: each after the first when somebody has asked for /go."""
        self._send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        for number in range(count):
            if number:
                self._gate.wait()
            self._chunk(f"data: {number}\n\n".encode())
        self._send(b"0\r\n\r\n")
        return True

    def _echo(self, request: Request) -> bool:
        self._send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for piece in request.body():
            self._chunk(piece)
        lines = "".join(f"{name}: {value}\r\n" for name, value in request.trailers)
        self._send(f"0\r\n{lines}\r\n".encode("latin-1"))
        return True

    def _chunk(self, data: bytes) -> None:
        if data:
            self._send(b"%x\r\n%b\r\n" % (len(data), data))

    def _send(self, data: bytes) -> None:
        self._socket.sendall(data)


def say(note: dict[str, object]) -> None:
    with LINE:
        sys.stdout.write(json.dumps(note) + "\n")
        sys.stdout.flush()


def serve(connected: socket.socket, gate: Gate) -> None:
    with connected, contextlib.suppress(OSError):
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        Conversation(connected, gate).run()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--address", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8080)
    arguments = parser.parse_args()
    gate = Gate()
    with socket.create_server((arguments.address, arguments.port), backlog=512) as listener:
        sys.stderr.write("recorder: ready\n")
        while True:
            connected, _ = listener.accept()
            threading.Thread(target=serve, args=(connected, gate), daemon=True).start()


if __name__ == "__main__":
    main()
