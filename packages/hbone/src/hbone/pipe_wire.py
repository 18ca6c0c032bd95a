"""The connection of a single tunnel as bytes: a socket without Python's modules for one, which take long to import."""

from __future__ import annotations

import _socket
import time

from hbone import readiness

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hbone.urls import Address

READ = 256 * 1024
KEEPALIVE = 60  # seconds of silence after which the kernel asks whether the other host is still there


class Late(Exception):
    """The time is over."""


class Deadline:
    """When the time is over."""

    def __init__(self, *, seconds: float) -> None:
        self.seconds = seconds
        self._end = time.monotonic() + seconds

    @property
    def left(self) -> float:
        """Seconds. Raises Late when there are none."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise Late
        return left


class Wire:
    """A connected socket. ``is_over`` when nothing more comes, ``reason`` says why if that was no orderly end."""

    def __init__(self, connected: _socket.socket) -> None:
        self.file = connected.fileno()
        self.is_over = False
        self.reason = ""
        self._socket = connected
        self._rest = b""  # what the peer has not taken yet
        self._is_deaf = False  # it takes nothing more

    @property
    def backlog(self) -> int:
        """Bytes that wait for the peer to take them."""
        return len(self._rest)

    def shake_hands(self, deadline: Deadline) -> bool:
        """Before all else; whether the peer speaks HTTP/2. Raises OSError, Late."""
        return True

    def send(self, data: bytes) -> None:
        """Send it, now or when there is room."""
        self._rest = self._rest + data if self._rest else data
        self.flush()

    def flush(self) -> None:
        """Send what waits, as far as there is room."""
        if self._rest and not self._is_deaf:
            try:
                self._rest = self._rest[self._socket.send(self._rest) :]
            except BlockingIOError:
                return
            except OSError:
                # It may have said something before: that is read to its end.
                self._is_deaf = True
        if self._is_deaf:
            self._rest = b""

    def receive(self) -> bytes:
        """What has come by now."""
        try:
            data = self._socket.recv(READ)
        except BlockingIOError:
            return b""
        except OSError as error:
            self.is_over, self.reason = True, f"the connection was lost: {error}"
            return b""
        self.is_over = not data
        return data

    def wait(self, *files: int, seconds: float | None) -> set[int]:
        """Which of these files is ready, and this one among them."""
        return readiness.wait(reads=[self.file, *files], writes=[self.file] if self._rest else [], seconds=seconds)

    def close(self, *, seconds: float) -> None:
        """Close when the peer has taken what waits, but not later than that."""
        deadline = Deadline(seconds=seconds)
        try:
            while self._rest:
                readiness.wait(reads=[], writes=[self.file], seconds=deadline.left)
                self.flush()
        except Late:
            pass
        self._socket.close()


def dial(address: Address, *, deadline: Deadline) -> _socket.socket:
    """A socket that is connected to the first of the host's addresses that answers. Raises OSError, Late."""
    failed: OSError = _socket.gaierror("no address")
    for family, kind, protocol, _, place in _resolve(address, deadline=deadline):
        dialled = _socket.socket(family, kind, protocol)
        try:
            dialled.setblocking(False)
            _connect(dialled, place, deadline=deadline)
        except OSError as error:
            dialled.close()
            failed = error
        else:
            _tune(dialled)
            return dialled
    raise failed


def _connect(dialled: _socket.socket, place: tuple[object, ...], *, deadline: Deadline) -> None:
    try:
        dialled.connect(place)
    except BlockingIOError:
        while not readiness.wait(reads=[], writes=[dialled.fileno()], seconds=deadline.left):
            pass
        code = dialled.getsockopt(_socket.SOL_SOCKET, _socket.SO_ERROR)
        if code:
            import os

            raise OSError(code, os.strerror(code)) from None


def _tune(connected: _socket.socket) -> None:
    """No delay for small messages, and keepalives."""
    try:
        connected.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_NODELAY, 1)
        connected.setsockopt(_socket.SOL_SOCKET, _socket.SO_KEEPALIVE, 1)
        if hasattr(_socket, "TCP_KEEPIDLE"):  # not on macOS
            connected.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_KEEPIDLE, KEEPALIVE)
    except OSError:  # it is gone already
        pass


Found = list[tuple[int, int, int, str, tuple[object, ...]]]


def _resolve(address: Address, *, deadline: Deadline) -> Found:
    """The host's addresses. Raises OSError, Late."""
    # As bytes: of text, Python would import what knows names in other scripts.
    host = address.host.encode("ascii")
    try:
        return _found(host, address.port, flags=_socket.AI_NUMERICHOST)
    except _socket.gaierror:
        pass
    return _ask(host, address.port, deadline=deadline)


def _found(host: bytes, port: int, *, flags: int = 0) -> Found:
    return list(_socket.getaddrinfo(host, port, 0, _socket.SOCK_STREAM, 0, flags))


def _ask(host: bytes, port: int, *, deadline: Deadline) -> Found:
    """The same from name servers, in a thread: nothing else can end that wait in time."""
    import _thread

    answers: list[Found | OSError] = []
    is_done = _thread.allocate_lock()
    is_done.acquire()

    def ask() -> None:
        try:
            answers.append(_found(host, port))
        except OSError as error:
            answers.append(error)
        is_done.release()

    _thread.start_new_thread(ask, ())
    if not is_done.acquire(timeout=deadline.left):
        raise Late
    (answer,) = answers
    if isinstance(answer, OSError):
        raise answer
    return answer
