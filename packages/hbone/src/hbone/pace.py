"""How much of a peer is read at once: less while it takes long to understand, so that others have their turn.

Half a megabyte may be two frames, or fifty thousand: of those that carry next to nothing a peer has its few
milliseconds, and then the next one has its own.
"""

from __future__ import annotations

from hbone.buffers import INCOMING

FIRST = 32 * 1024  # bytes: a peer that is new may mean ill
LEAST = 8 * 1024  # that are read at once in any case, and take no long time
LONG = 0.005  # seconds of CPU for what was read at once
SHORT = LONG / 4


class Pace:
    """Of one peer; ``most`` are the bytes of its next read."""

    __slots__ = ("most",)

    def __init__(self) -> None:
        self.most = FIRST

    def took(self, seconds: float) -> None:
        """So long was the last one."""
        if seconds > LONG:
            self.most = max(LEAST, self.most // 2)
        elif seconds < SHORT and self.most < INCOMING:
            self.most = min(INCOMING, self.most * 2)
