"""A tunnel on the server before it runs: its target is dialled, and what the client already says is kept."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable, Sequence

from hbone.events import Fields
from hbone.flow import Flow
from hbone.poller import WRITE
from hbone.session import Session
from hbone.stream import StreamBroken

UNDER_WAY = (errno.EINPROGRESS, errno.EALREADY)


class Dialling:
    """The stream's party until ``connected`` is called, or ``failed`` with an errno, or ``gone`` with the reason."""

    __slots__ = (
        "_connected", "_dialled", "_failed", "_file", "_gone", "_is_over", "_timer", "flow", "is_ended", "said",
        "session",
    )  # fmt: skip

    def __init__(
        self,
        *,
        session: Session,
        flow: Flow,
        connected: Callable[[Dialling, socket.socket], object],
        failed: Callable[[Dialling, int], object],
        gone: Callable[[str], object],
    ) -> None:
        self.session = session
        self.flow = flow
        self.said = bytearray()  # by the client, so far
        self.is_ended = False  # it has said all
        self._connected = connected
        self._failed = failed
        self._gone = gone
        self._dialled: socket.socket | None = None
        self._file = -1
        self._timer: asyncio.TimerHandle | None = None
        self._is_over = False

    def dial(self, address: tuple[str, int], *, family: socket.AddressFamily, seconds: float) -> None:
        """Begin, unless the client has given up already."""
        if self._is_over:
            return
        try:
            dialled = self._dialled = socket.socket(family, socket.SOCK_STREAM)
        except OSError as error:
            self._fail(error.errno or 0)
            return
        dialled.setblocking(False)
        code = dialled.connect_ex(address)
        if code in UNDER_WAY:  # a target on this machine has mostly answered by now
            code = dialled.connect_ex(address)
        if code in UNDER_WAY:
            self._file = dialled.fileno()
            self.session.poller.set(self._file, WRITE, lambda _: self._look(address))
            self._timer = asyncio.get_running_loop().call_later(seconds, self._fail, errno.ETIMEDOUT)
        else:
            self._done(code)

    def _look(self, address: tuple[str, int]) -> None:
        """Whatever woke us, the kernel knows."""
        dialled = self._dialled
        if dialled is None:
            return
        code = dialled.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) or dialled.connect_ex(address)
        if code not in UNDER_WAY:
            self._done(code)

    def _done(self, code: int) -> None:
        if code not in (0, errno.EISCONN):
            self._fail(code)
            return
        dialled = self._dialled
        if dialled is not None:
            self._dialled = None
            self._end()
            self._connected(self, dialled)

    def _fail(self, code: int) -> None:
        self._end()
        self._failed(self, code)

    def _end(self) -> None:
        self._is_over = True
        if self._timer is not None:
            self._timer.cancel()
        if self._file >= 0:
            self.session.poller.drop(self._file)
        if self._dialled is not None:
            self._dialled.close()
            self._dialled = None

    def received(self, pieces: Sequence[memoryview]) -> None:
        for piece in pieces:
            self.said += piece

    def ended(self) -> None:
        self.is_ended = True

    def broke(self, error: StreamBroken) -> None:
        if not self._is_over:
            has_begun = self._dialled is not None
            self._end()
            self.session.forget(self.flow.number)
            if has_begun:  # else nobody has heard of it
                self._gone(str(error))

    def has_room(self) -> None:
        """Nothing is sent yet."""

    def opened(self, status: int, fields: Fields) -> None:
        """A server is not answered."""

    def informed(self, status: int, fields: Fields) -> None:
        """A server is not answered."""

    def ends_with(self, trailers: Fields) -> None:
        """A tunnel has none."""
