"""Catches the ClientHello that a client sends: listens, reads until it is whole, and closes without an answer."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

WAIT = 30.0  # a browser takes its time


class Catcher:
    """What was caught so far; each connection is one hello."""

    def __init__(self, listener: socket.socket) -> None:
        self.host, self.port = listener.getsockname()
        self._listener = listener
        self._caught: list[bytes] = []
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def wait(self) -> bytes:
        """The first hello. TimeoutError when none comes."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._caught, WAIT):
                raise TimeoutError(f"no ClientHello within {WAIT:g} s")
            return self._caught[0]

    def _run(self) -> None:
        while True:
            try:
                connected, _ = self._listener.accept()
            except OSError:
                return
            with connected, contextlib.suppress(OSError, EOFError):
                connected.settimeout(WAIT)
                hello = whole(connected)
                with self._changed:
                    self._caught.append(hello)
                    self._changed.notify_all()


def whole(connected: socket.socket) -> bytes:
    """The records of a connection's first handshake message (RFC 8446 §5.1), as they came.

    EOFError when it ends before, or it is no handshake.
    """
    records, message = b"", b""
    while len(message) < 4 or len(message) < 4 + int.from_bytes(message[1:4], "big"):
        head = _take(connected, 5)
        if head[0] != 22:
            raise EOFError("no handshake")
        payload = _take(connected, int.from_bytes(head[3:5], "big"))
        records += head + payload
        message += payload
    return records


def _take(connected: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        piece = connected.recv(count - len(data))
        if not piece:
            raise EOFError("the end")
        data += piece
    return data


@contextlib.contextmanager
def catching(address: str = "127.0.0.1") -> Iterator[Catcher]:
    with socket.create_server((address, 0)) as listener:
        catcher = Catcher(listener)
        yield catcher
        listener.shutdown(socket.SHUT_RDWR)
