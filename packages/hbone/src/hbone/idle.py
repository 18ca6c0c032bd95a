"""Frames of the peer that carry nothing (PING, SETTINGS, WINDOW_UPDATE, empty pieces): counts those beyond need.

So are headers of which nothing comes: informations, and those of streams that are refused or over.
"""

from __future__ import annotations

from hbone import frames

# So many are free for each piece of payload that we send and each request, answer or trailer of the peer: many clients
# answer every piece by two or three.
CREDIT = 4
MAX_CREDIT = 100_000


class IdleFrames:
    """The count of one connection."""

    def __init__(self) -> None:
        self.count = 0  # since it was taken last
        self._credit = 0

    def earn(self, pieces: int = 1) -> None:
        """So much was carried."""
        self._credit = min(MAX_CREDIT, self._credit + CREDIT * pieces)

    def look_at(self, frame: bytes) -> None:
        """Take a whole frame of the peer."""
        if frames.is_idle(frame):
            self.spend()

    def spend(self) -> None:
        """A frame of the peer has carried nothing."""
        if self._credit:
            self._credit -= 1
        else:
            self.count += 1

    def take(self) -> int:
        """How many there were since this was asked last."""
        count, self.count = self.count, 0
        return count
