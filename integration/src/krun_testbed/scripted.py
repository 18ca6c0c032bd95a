"""A server of HTTP/2 that does what a script says, byte by byte, and notes what its client says to that."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Callable, Iterator

from krun_testbed.tunnels import target

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM = ACK = 0x1
END_HEADERS, PADDED = 0x4, 0x8
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
OK = b"\x88"  # :status 200, from the static table


def frame(kind: int, *, stream: int = 0, payload: bytes = b"", flags: int = 0, length: int | None = None) -> bytes:
    """A frame; ``length`` is what its header says, where that is not the truth."""
    size = len(payload) if length is None else length
    return struct.pack(">I", size)[1:] + bytes((kind, flags)) + struct.pack(">I", stream) + payload


def setting(name: int, value: int) -> bytes:
    return frame(SETTINGS, payload=struct.pack(">HI", name, value))


def goaway(*, last: int = 0, code: int = 0) -> bytes:
    return frame(GOAWAY, payload=struct.pack(">II", last, code))


def reset(stream: int, code: int) -> bytes:
    return frame(RST_STREAM, stream=stream, payload=struct.pack(">I", code))


def window(stream: int, count: int) -> bytes:
    return frame(WINDOW_UPDATE, stream=stream, payload=struct.pack(">I", count))


def answer(stream: int = 1, block: bytes = OK, *, ends: bool = False) -> bytes:
    return frame(HEADERS, stream=stream, payload=block, flags=END_HEADERS | (END_STREAM if ends else 0))


def field(name: bytes, value: bytes) -> bytes:
    """One field as a literal without indexing; both shorter than 127 bytes."""
    return b"\x00" + bytes((len(name),)) + name + bytes((len(value),)) + value


class Client:
    """The client of one connection, as its server sees it."""

    def __init__(self, connected: socket.socket) -> None:
        self.socket = connected
        self.goaway: int | None = None  # the code that it has ended with
        self.resets: dict[int, int] = {}
        self._buffer = b""

    def send(self, *pieces: bytes) -> None:
        # It may be gone already: what it has said before that is what counts.
        with contextlib.suppress(ConnectionError):
            for piece in pieces:
                self.socket.sendall(piece)

    def wait_for_request(self) -> None:
        """The preface and all up to a whole head."""
        self._wait(lambda kind: kind == HEADERS)

    def wait_for_acknowledgement(self) -> None:
        """It has read our settings."""
        self._wait(lambda kind: kind == SETTINGS, flags=ACK)

    def read_to_the_end(self) -> None:
        """Until it closes."""
        with contextlib.suppress(OSError):  # a script may have closed it itself
            self._wait(lambda _: False)

    def _wait(self, found: Callable[[int], bool], *, flags: int = 0) -> None:
        while True:
            self._buffer = self._buffer.removeprefix(PREFACE)
            while len(self._buffer) >= 9 and not self._buffer.startswith(PREFACE[:9]):
                end = 9 + int.from_bytes(self._buffer[:3], "big")
                if len(self._buffer) < end:
                    break
                taken, self._buffer = self._buffer[:end], self._buffer[end:]
                self._note(taken)
                if found(taken[3]) and taken[4] & flags == flags:
                    return
            data = self.socket.recv(65536)
            if not data:
                return
            self._buffer += data

    def _note(self, taken: bytes) -> None:
        if taken[3] == GOAWAY and self.goaway is None:
            self.goaway = int.from_bytes(taken[13:17], "big")
        if taken[3] == RST_STREAM:
            self.resets[int.from_bytes(taken[5:9], "big")] = int.from_bytes(taken[9:13], "big")


Script = Callable[[Client], object]


class Server:
    """Plays the script that is set to each of its clients, reads to their end, and keeps what they said."""

    def __init__(self) -> None:
        self.script: Script = Client.read_to_the_end
        self.clients: list[Client] = []

    def __call__(self, connected: socket.socket) -> None:
        client = Client(connected)
        self.clients.append(client)
        self.script(client)
        client.read_to_the_end()

    def end(self) -> None:
        """End all connections: of a fault in one stream a client's others know nothing."""
        for client in self.clients:
            with contextlib.suppress(OSError):  # it is closed already
                client.socket.shutdown(socket.SHUT_RDWR)
        self.clients.clear()


@contextlib.contextmanager
def serving(address: str, *, port: int = 15009) -> Iterator[Server]:
    """The server, listening."""
    server = Server()
    with target(address, server, port=port):
        yield server
