"""When a worker that has died is started again: at once, but not again and again. And when one is taken for dead."""

from __future__ import annotations

STEADY = 10.0  # seconds that a worker must have lived for its successor to start at once
PAUSES = (0.1, 0.5, 2.0, 5.0)  # seconds before the next is started, when they die one after the other
# Seconds without a single worker that is ready: then it is no accident, and whoever runs us should know.
ALL_DEAD = 30.0
GOODBYE = 3.0  # seconds for workers to end at once
TIMEOUT = 30.0  # seconds of silence after which a worker hangs
LOOKS = 5  # in that time: how often a worker says that it is well, and how often that is looked at


class Restarts:
    """Of one worker and its successors."""

    def __init__(self) -> None:
        self._in_a_row = 0

    def pause(self, *, lived: float) -> float:
        """Seconds until the next is started, when the last one has lived so long."""
        if lived >= STEADY:
            self._in_a_row = 0
            return 0.0
        pause = PAUSES[min(self._in_a_row, len(PAUSES) - 1)]
        self._in_a_row += 1
        return pause


class Pulse:
    """Whether a worker still says that it is well.

    Who looks may have been stopped itself, with its workers: a container without work has no CPU for hours. Then they
    have their time from that look on.
    """

    def __init__(self, *, timeout: float, now: float) -> None:
        self._timeout = timeout
        self._felt = self._looked = now

    def feel(self, *, now: float) -> None:
        """It has said so."""
        self._felt = now

    def is_gone(self, *, now: float) -> bool:
        """Whether it hangs. To be asked ``LOOKS`` times in the time that it has, when all that it said was heard."""
        if now - self._looked > self._timeout / 2:
            self._felt = now
        self._looked = now
        return now - self._felt >= self._timeout
