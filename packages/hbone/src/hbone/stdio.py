"""stdin and stdout as the local end of a tunnel, read and written in threads.

Threads, because polls take no regular files and macOS's no terminals, because to make them non-blocking would do so
for every program that shares them, and because a reader of stdout that stops must not stop what goes the other way.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # the part of ``signal`` in C: all of it takes long to import
import _thread
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

READ = 64 * 1024


class Stdio:
    """The process's own. ``file`` can be read when one of both has something to tell."""

    def __init__(self) -> None:
        self.file, self._wake = os.pipe()
        # Of a signal that comes just before the loop waits nothing else would wake it, and Ctrl-C would be lost.
        os.set_blocking(self._wake, False)
        _signal.set_wakeup_fd(self._wake)
        self._reader: _Worker | None = None
        self._writer: _Worker | None = None

    def heard(self) -> None:
        """``file`` was ready."""
        os.read(self.file, 64)

    def ask(self) -> None:
        """Have stdin read once."""
        if self._reader is None:
            self._reader = _Worker(_read, wake=self._wake)
        self._reader.ask(b"")

    def read(self) -> bytes | None:
        """What was read, ``b""`` at the end, None when it is not known yet. Raises OSError."""
        return self._reader.take() if self._reader is not None else None

    @property
    def is_writing(self) -> bool:
        return self._writer is not None and self._writer.is_busy

    def write(self, data: bytes) -> None:
        """Have it written; not while something else is."""
        if self._writer is None:
            self._writer = _Worker(_write, wake=self._wake)
        self._writer.ask(data)

    def written(self) -> bool:
        """Whether what was to be written has been since this was asked. Raises OSError."""
        return self._writer is not None and self._writer.take() is not None


class _Worker:
    """A thread that makes blocking calls, one after the other; it does not keep the process alive.

    By hand: ``threading`` and ``queue`` take longer to import than a tunnel takes to open.
    """

    def __init__(self, call: Callable[[bytes], bytes], *, wake: int) -> None:
        self.is_busy = False
        self._call = call
        self._wake = wake
        self._data = b""
        self._outcome: bytes | OSError | None = None
        self._turn = _thread.allocate_lock()
        self._turn.acquire()  # until it is asked
        _thread.start_new_thread(self._work, ())

    def ask(self, data: bytes) -> None:
        self.is_busy = True
        self._data = data
        self._turn.release()

    def take(self) -> bytes | None:
        outcome = self._outcome
        if outcome is None:
            return None
        self._outcome = None  # only now: until it is there, the thread may set it at any moment, and not after that
        self.is_busy = False
        if isinstance(outcome, OSError):
            raise outcome
        return outcome

    def _work(self) -> None:
        while True:
            self._turn.acquire()
            data, self._data = self._data, b""
            try:
                self._outcome = self._call(data)
            except OSError as error:
                self._outcome = error
            del data
            os.write(self._wake, b".")


def _read(_: bytes) -> bytes:
    while True:
        try:
            return os.read(0, READ)
        except BlockingIOError:  # somebody else has made it non-blocking
            _wait(0)


def _write(data: bytes) -> bytes:
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(1, rest) :]
        except BlockingIOError:
            _wait(1)
    return b""


def _wait(file: int) -> None:
    from hbone import readiness  # late: hardly ever needed

    readiness.wait(reads=[0] if file == 0 else [], writes=[1] if file else [])
