"""One short question to a part of ours: does it accept a connection, what does it answer; never blocks.

Not http.client: it blocks, and a signal must never wait for an answer.
"""

from __future__ import annotations

import errno
import re
import select
import socket

LIMIT = 1 << 20  # bytes of an answer that are kept, unless more are wanted
LINE = 256  # bytes in which the status is
HEX = re.compile(rb"[0-9A-Fa-f]{1,8}")  # the size of a chunk
PROGRESSING = (0, errno.EINPROGRESS, errno.EAGAIN)


class Exchange:
    """A TCP connection, one HTTP/1.1 request if there is one, and the answer as far as it is wanted.

    The owner polls ``fileno()`` for ``events`` and calls ``advance`` when ready, until ``is_done``.
    """

    def __init__(
        self,
        *,
        host: str,
        port: int,
        path: str = "",
        method: str = "GET",
        wants_body: bool = False,
        limit: int = LIMIT,
    ) -> None:
        self.is_done = False
        self.is_connected = False
        self._status = 0
        self._wants_body = wants_body
        self._limit = limit
        head = f"{method} {path} HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        self._unsent = head.encode() if path else b""
        self._has_request = bool(path)
        self._answer = bytearray()
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        if self._socket.connect_ex((host, port)) not in PROGRESSING:
            self.close()

    @property
    def status(self) -> int:
        """The HTTP status; 0 when there was no HTTP answer."""
        return self._status

    @property
    def body(self) -> str:
        """What came after the head; chunks are put together (RFC 9112 §7.1)."""
        head, _, body = bytes(self._answer).partition(b"\r\n\r\n")
        if b"\r\ntransfer-encoding: chunked" in head.lower():
            body = _unchunked(body)
        return body.decode(errors="replace")

    @property
    def events(self) -> int:
        return select.POLLIN if self.is_connected and not self._unsent else select.POLLOUT

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self.is_done = True
        self._socket.close()

    def advance(self) -> None:
        """Go as far as the socket lets us."""
        try:
            self._advance()
        except BlockingIOError:
            return
        except OSError:
            self.close()

    def _advance(self) -> None:
        if not self.is_connected:
            if self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                self.close()
                return
            self.is_connected = True
            if not self._has_request:
                self.close()
                return
        while self._unsent:
            self._unsent = self._unsent[self._socket.send(self._unsent) :]
        data = self._socket.recv(65536)
        self._answer += data[: max(0, self._limit - len(self._answer))]
        line, end, _ = bytes(self._answer[:LINE]).partition(b"\r\n")
        words = line.split()
        if end and len(words) > 1 and line.startswith(b"HTTP/1.") and words[1].isdigit():
            self._status = int(words[1])
        if not data or (end and not self._wants_body):
            self.close()


def _unchunked(body: bytes) -> bytes:
    """The chunks that came whole."""
    found: list[bytes] = []
    at = 0
    while (end := body.find(b"\r\n", at)) >= 0:
        size = body[at:end].partition(b";")[0].strip()
        length = int(size, 16) if HEX.fullmatch(size) else 0
        at = end + 2
        if not length or at + length > len(body):
            break
        found.append(body[at : at + length])
        at += length + 2
    return b"".join(found)
