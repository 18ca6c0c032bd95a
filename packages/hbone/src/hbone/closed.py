"""Streams that were closed not long ago: what still comes for them is not always a fault (RFC 9113 §5.1)."""

from __future__ import annotations

REMEMBERED = 2000


class Closed:
    """The last of them; of those that we have reset, what the peer may still send, as it may not have known yet."""

    def __init__(self) -> None:
        self._left: dict[int, int | None] = {}

    def add(self, stream: int, *, left: int | None = None) -> None:
        """``left``: bytes of its window, where we have reset it."""
        if len(self._left) >= REMEMBERED:
            del self._left[next(iter(self._left))]
        self._left[stream] = left

    def was_reset_by_us(self, stream: int) -> bool:
        return self._left.get(stream) is not None

    def may_send(self, stream: int, count: int) -> bool:
        """Whether so much was left to it, of a stream that we have reset: it is gone then."""
        left = (self._left[stream] or 0) - count
        self._left[stream] = max(0, left)
        return left >= 0

    def __contains__(self, stream: int) -> bool:
        return stream in self._left
