"""A pipe of the kernel's, by which bytes go from one socket to another and are never in our memory (splice(2)).

It is empty between two turns of the loop: what the second socket does not take comes out as bytes, which wait like any
others. So all connections of a loop share one, and an idle tunnel has none.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import sys

SIZE = 1024 * 1024  # what a user may have at most, as Linux comes
LEAST = 32 * 1024  # fewer bytes are copied faster: it takes one more system call for each end
# What a kernel says that cannot do it, or not with these files; sandboxes are such kernels.
UNABLE = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM)


class Unable(Exception):
    """It cannot be done here, and nothing was done."""


class Conduit:
    """It is made when it is first used."""

    def __init__(self) -> None:
        self.is_able = sys.platform == "linux"
        self._ends: tuple[int, int] | None = None

    def take(self, source: int, count: int) -> int:
        """Take up to so many bytes from a socket; return how many, 0 at its end. Raises Unable, OSError of the
        socket's."""
        if sys.platform != "linux" or not self.is_able:
            raise Unable
        try:
            return os.splice(source, self._open()[1], count, flags=os.SPLICE_F_NONBLOCK)
        except OSError as error:
            if error.errno not in UNABLE:
                raise
            self.close()
            raise Unable from error

    def give(self, to: int, count: int) -> int:
        """Give a socket the ``count`` bytes that were taken; return how many it has taken: the others are to be asked
        for by ``rest``. Raises OSError of the socket's, and then there are no others."""
        given = 0
        if sys.platform == "linux":
            try:
                while given < count:
                    given += os.splice(self._open()[0], to, count - given, flags=os.SPLICE_F_NONBLOCK)
            except BlockingIOError:
                pass
            except OSError as error:
                if error.errno not in UNABLE:
                    self.rest(count - given)
                    raise
                self.is_able = False
        return given

    def rest(self, count: int) -> bytes:
        """So many bytes, which are all that is left."""
        ends = self._open()
        pieces = []
        while count > 0:
            pieces.append(os.read(ends[0], count))
            count -= len(pieces[-1])
        return b"".join(pieces)

    def _open(self) -> tuple[int, int]:
        if self._ends is None and sys.platform == "linux":
            try:
                self._ends = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
            except OSError as error:  # too many files
                raise Unable from error
            with contextlib.suppress(OSError):  # then it is a smaller one
                fcntl.fcntl(self._ends[0], fcntl.F_SETPIPE_SZ, SIZE)
        assert self._ends is not None  # noqa: S101 - for the type checker
        return self._ends

    def close(self) -> None:
        """Use it no more."""
        self.is_able = False
        if self._ends is not None:
            for end in self._ends:
                os.close(end)
            self._ends = None
