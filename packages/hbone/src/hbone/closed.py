"""Streams that were closed not long ago: what still comes for them is not always a fault (RFC 9113 §5.1)."""

from __future__ import annotations

REMEMBERED = 2000


class Closed:
    """The last of them, and whether we have reset them, so that the peer may not have known yet."""

    def __init__(self) -> None:
        self._is_ours: dict[int, bool] = {}

    def add(self, stream: int, *, is_ours: bool) -> None:
        if len(self._is_ours) >= REMEMBERED:
            del self._is_ours[next(iter(self._is_ours))]
        self._is_ours[stream] = is_ours

    def was_reset_by_us(self, stream: int) -> bool:
        return self._is_ours.get(stream, False)

    def __contains__(self, stream: int) -> bool:
        return stream in self._is_ours
