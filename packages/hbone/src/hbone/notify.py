"""Tells whoever started us how we are, on a pipe: ``ready``, and once we drain ``idle``. Never waits for its reader."""

from __future__ import annotations

import contextlib
import os
import stat
from typing import Protocol

MAX_DIGITS = 9


class Starter(Protocol):
    """Whoever started us, and wants to know how we are."""

    def ready(self) -> None:
        """We accept."""

    def idle(self) -> None:
        """We drain, and no request of the public is under way."""


class Notify:
    """The pipe, if one was given."""

    def __init__(self, number: str) -> None:
        """``number``: of an inherited pipe above the standard streams; what is none is ignored."""
        self._pipe: int | None = None
        if not (number.isascii() and number.isdecimal() and len(number) <= MAX_DIGITS and int(number) > 2):
            return
        with contextlib.suppress(OSError, OverflowError):
            pipe = int(number)
            if stat.S_ISFIFO(os.fstat(pipe).st_mode):
                os.set_inheritable(pipe, False)
                os.set_blocking(pipe, False)
                self._pipe = pipe

    def ready(self) -> None:
        self._say("ready")

    def idle(self) -> None:
        self._say("idle")

    def close(self) -> None:
        """Say no more: another process does."""
        if self._pipe is not None:
            os.close(self._pipe)
            self._pipe = None

    def _say(self, word: str) -> None:
        if self._pipe is not None:
            with contextlib.suppress(OSError):  # nobody reads, or it is full
                os.write(self._pipe, f"{word}\n".encode())
