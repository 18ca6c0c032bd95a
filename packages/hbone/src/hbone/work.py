"""Requests of the public that are under way: counts them, and says once when the last one is done while draining."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator


class Work:
    """The count."""

    def __init__(self, *, idle: Callable[[], None]) -> None:
        self._idle = idle
        self._count = 0
        self._is_draining = False
        self._is_told = False

    def drain(self) -> None:
        self._is_draining = True
        self._tell()

    @contextlib.contextmanager
    def one(self) -> Iterator[None]:
        """One request, while the block runs."""
        self._count += 1
        try:
            yield
        finally:
            self._count -= 1
            self._tell()

    def _tell(self) -> None:
        if self._is_draining and not self._count and not self._is_told:
            self._is_told = True
            self._idle()
