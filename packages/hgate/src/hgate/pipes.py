"""Pipes for splice(2): taken while bytes are in them, and shared by all connections of a worker."""

from __future__ import annotations

import contextlib
import fcntl
import os

SIZE = 256 * 1024
# Those that wait for a slow reader, with SIZE in each; a user may have 64 MiB in pipes (fs.pipe-user-pages-soft).
MAX_PIPES = 128


class Pipe:
    """A pipe, and how many bytes are in it."""

    __slots__ = ("held", "into", "out")

    def __init__(self) -> None:
        self.out, self.into = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.held = 0
        with contextlib.suppress(OSError):  # no right to as much: then it is a smaller one
            fcntl.fcntl(self.into, fcntl.F_SETPIPE_SZ, SIZE)

    def close(self) -> None:
        os.close(self.out)
        os.close(self.into)


class Pipes:
    """The pipes that are there."""

    def __init__(self, *, limit: int = MAX_PIPES) -> None:
        self._limit = limit
        self._count = 0
        self._idle: list[Pipe] = []

    def take(self) -> Pipe | None:
        """An empty pipe; ``None`` when there are as many as there may be: copy then."""
        if self._idle:
            return self._idle.pop()
        if self._count >= self._limit:
            return None
        try:
            pipe = Pipe()
        except OSError:
            return None
        self._count += 1
        return pipe

    def give(self, pipe: Pipe) -> None:
        """The connection needs it no more."""
        if pipe.held:
            # Nobody wants what is in it, and the next one must not find it.
            pipe.close()
            self._count -= 1
        else:
            self._idle.append(pipe)
