"""How much of something a peer may do: a burst, and so many a second after it."""

from __future__ import annotations


class Allowance:
    """A token bucket; times are seconds of any monotonic clock."""

    def __init__(self, *, burst: float, per_second: float, now: float) -> None:
        self._burst = burst
        self._per_second = per_second
        self._left = burst
        self._at = now

    def spend(self, *, now: float, count: int = 1) -> bool:
        """Take so many; false when there are not as many left."""
        self._left = min(self._burst, self._left + (now - self._at) * self._per_second)
        self._at = now
        if self._left < count:
            return False
        self._left -= count
        return True
