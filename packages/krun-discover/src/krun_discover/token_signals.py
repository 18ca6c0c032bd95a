"""The signals of a watcher: TERM and INT end it, at once while it waits for an answer; HUP renews now."""

from __future__ import annotations

import contextlib
import os
import select
import signal
from collections.abc import Iterator
from types import FrameType, TracebackType

from krun_discover.token_watch import Wake

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

ENDING = (signal.SIGTERM, signal.SIGINT)


class Ended(BaseException):
    """The end came while something could be interrupted; not an error that anybody may catch on the way."""


class Signals:
    """Takes the signals over while it is entered; in the main thread only."""

    def __init__(self) -> None:
        self._is_ended = False
        self._is_interruptible = False
        self._previous: dict[signal.Signals, object] = {}
        self._reader = self._writer = self._wakeup = -1

    def __enter__(self) -> Self:
        self._reader, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._wakeup = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        for number in ENDING:
            self._previous[number] = signal.signal(number, self._end)
        self._previous[signal.SIGHUP] = signal.signal(signal.SIGHUP, self._ignore)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type] # what signal.signal has given
        signal.set_wakeup_fd(self._wakeup)
        os.close(self._reader)
        os.close(self._writer)

    def pause(self, seconds: float) -> Wake:
        """Wait, and tell why no longer. A signal since the last pause ends this one at once."""
        if not self._is_ended and select.select([self._reader], [], [], seconds)[0]:
            numbers = self._drain()
            if not self._is_ended:
                return Wake.RENEW if signal.SIGHUP in numbers else Wake.TIME
        return Wake.END if self._is_ended else Wake.TIME

    @contextlib.contextmanager
    def interruptible(self) -> Iterator[None]:
        """A block that a signal to end leaves with Ended."""
        self._is_interruptible = True
        try:
            if self._is_ended:
                raise Ended
            yield
        finally:
            self._is_interruptible = False

    def _end(self, number: int, frame: FrameType | None) -> None:
        self._is_ended = True
        if self._is_interruptible:
            raise Ended

    def _ignore(self, number: int, frame: FrameType | None) -> None:
        """The wakeup descriptor has all that there is to know."""

    def _drain(self) -> bytes:
        with contextlib.suppress(BlockingIOError):
            return os.read(self._reader, 4096)
        return b""
