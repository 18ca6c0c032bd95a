"""Signals as data: each one that arrives is read from a file descriptor, in order, in the loop that acts on it."""

from __future__ import annotations

import contextlib
import os
import signal
from types import FrameType, TracebackType

ENDING = frozenset({signal.SIGTERM, signal.SIGINT})
"""Signals that drain; a second one ends now."""

FORWARDED = frozenset({signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH, signal.SIGQUIT, signal.SIGCONT})
"""Signals that the application gets at once."""

HARMLESS = frozenset({signal.SIGWINCH, signal.SIGCONT})
"""Of these, what would not end a process that has no handler."""

WITHOUT_MEANING = frozenset({signal.SIGUSR1, signal.SIGUSR2})
"""What only an application could understand: a sidecar passes over them."""

FROM_TERMINAL = frozenset({signal.SIGINT, signal.SIGQUIT, signal.SIGWINCH})
"""What a terminal sends to its whole foreground group, so that an application in ours has got it already."""


def name(number: int) -> str:
    """SIGTERM for 15; the number itself for a real-time signal."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)


class Signals:
    """A context in which signals arrive on ``fileno()``."""

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(self._writer, False)

    def __enter__(self) -> Signals:
        signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        for number in ENDING | FORWARDED | {signal.SIGCHLD}:
            signal.signal(number, _leave)
        # Whoever started us may have blocked some; blocked ones would never arrive.
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # The handlers stay: a signal in the last moments must not change the exit status.
        signal.set_wakeup_fd(-1)
        os.close(self._reader)
        os.close(self._writer)

    def fileno(self) -> int:
        return self._reader

    def read(self) -> list[int]:
        """The signals that came since the last call, SIGCHLD left out."""
        with contextlib.suppress(BlockingIOError):
            return [number for number in os.read(self._reader, 4096) if number != signal.SIGCHLD]
        return []


def _leave(number: int, frame: FrameType | None) -> None:
    """A handler has to exist for the wake-up descriptor to be written to; the loop does the rest."""
