"""How much each of several workers has, where all of them see it: who has more leaves a connection to who has less.

The kernel wakes one of those who sleep, in the order in which they began to wait. But who is awake finds the
connection, too, and mostly is there first: it is running. So the busy one would go on to take all that comes.
"""

from __future__ import annotations

import mmap
import time

WIDTH = 8  # bytes of a number
_COUNT, _FROM, _SINCE, _NUMBERS = 0, 1, 2, 3  # of a worker
# Of what the other has, so much more is as good as even: with thousands of them nobody needs to count by ones.
EVEN = 8


class Shares:
    """The numbers of all workers, as the one of this ``number`` uses them.

    Each writes its own only, without a lock: who reads one that is just being changed is wrong by one.
    """

    def __init__(self, memory: mmap.mmap, *, number: int = 0, slack: int = 1) -> None:
        """``slack``: how many more than another has are still even."""
        self._numbers = memoryview(memory).cast("q")
        self._slack = slack
        self._mine = number * _NUMBERS
        self._others = [at for at in range(0, len(self._numbers), _NUMBERS) if at != self._mine]

    @property
    def count(self) -> int:
        return self._numbers[self._mine + _COUNT]

    @count.setter
    def count(self, count: int) -> None:
        self._numbers[self._mine + _COUNT] = count

    def will_wait(self) -> None:
        """This one is about to go to the end of the line."""
        self._numbers[self._mine + _FROM] = time.monotonic_ns()

    def waits(self) -> None:
        """It is in it now: before all who begin from now on, behind all who waited before it began."""
        self._numbers[self._mine + _SINCE] = time.monotonic_ns()

    def leaves(self) -> None:
        """This one is not in the line."""
        self._numbers[self._mine + _SINCE] = 0

    def has_gone(self) -> None:
        """This one is no more: its successor begins with nothing."""
        self.leaves()
        self.count = 0

    def is_anothers(self) -> bool:
        """Whether another who has less is before this one in the line, so that it was woken, or is awake."""
        return self._has_more(than_before=self._numbers[self._mine + _FROM])

    def has_more(self) -> bool:
        """Whether this one has more than another who is in the line."""
        return self._has_more(than_before=time.monotonic_ns())

    def has_less(self) -> bool:
        """Whether another in the line has more: then this one may stay before it."""
        numbers, mine = self._numbers, self.count
        return any(numbers[at + _SINCE] and self._is_more(numbers[at], mine) for at in self._others)

    def _has_more(self, *, than_before: int) -> bool:
        numbers, mine = self._numbers, self.count
        return any(0 < numbers[at + _SINCE] < than_before and self._is_more(mine, numbers[at]) for at in self._others)

    def _is_more(self, one: int, other: int) -> bool:
        return one - other >= self._slack + other // EVEN


def size(workers: int) -> int:
    """Bytes of memory that so many need."""
    return workers * _NUMBERS * WIDTH
