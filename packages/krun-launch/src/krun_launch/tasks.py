"""What is run again and again while all goes on, such as the renewal of a token: when (pure), and the doing of it.

Times are of CLOCK_BOOTTIME and, for the life of a credential, of the wall clock: while a machine sleeps or an instance
is frozen, time.monotonic() may stand still, and a token's life does not.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence

from krun_launch import lines
from krun_launch.errors import Failure
from krun_launch.expiry import stamp
from krun_launch.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from krun_launch.expiry import Life
    from krun_launch.oneshot import OneShot
    from krun_launch.plan import Task
    from krun_launch.spawn import ProcessSpec

GLANCE = 30.0  # seconds between looks at the clocks: they may jump, or have gone on without us
JITTER = 0.1  # of a pause, by which it is shorter: many workloads do not come at once
SHARE = 0.8  # of a credential's life, after which it is renewed, as the kubelet does
LONGEST = 60.0  # seconds from a failure to the next try: whoever was away for long is not kept waiting as long
PATIENCE = 120.0  # seconds that one run may take; krun-token gives up after 60


def pause(task: Task, *, failures: int, draw: float) -> float:
    """Seconds from a start to the next, or from a failure to the next try; ``draw`` is a number from 0 to 1."""
    whole = min(task.every, LONGEST, task.retry * 2.0 ** min(failures - 1, 30)) if failures else task.every
    return whole * (1 - JITTER * draw)


class _Entry:
    """One task: when it is due, what runs, and how it went so far."""

    def __init__(self, *, task: Task, due: float) -> None:
        self.task = task
        self.due = due
        self.due_by_wall: float | None = None  # when the credential that it renews gets old
        self.shot: OneShot | None = None
        self.began = 0.0
        self.failures = 0  # in a row
        self.succeeded = 0
        self.failed = 0


class Count(Record):
    """How often a task went well, and how often it did not."""

    name: str
    succeeded: int
    failed: int


class Schedule:
    """Starts what is due, one run of each task at a time; ``act`` does all of it, and never waits."""

    def __init__(
        self,
        tasks: Sequence[Task],
        *,
        start: Callable[[ProcessSpec], OneShot],
        kill: Callable[[str], object],
        life: Callable[[Task], Life | None],
        clock: Callable[[], float] = lambda: time.clock_gettime(time.CLOCK_BOOTTIME),
        wall: Callable[[], float] = time.time,
        draw: Callable[[], float] = lambda: os.urandom(1)[0] / 255,
    ) -> None:
        self._start = start
        self._kill = kill
        self._life = life
        self._clock = clock
        self._wall = wall
        self._draw = draw
        # The start has just done each of them once.
        self._entries = [_Entry(task=task, due=clock() + pause(task, failures=0, draw=draw())) for task in tasks]
        for entry in self._entries:
            self._note_life(entry)

    @property
    def counts(self) -> list[Count]:
        return [Count(name=entry.task.name, succeeded=entry.succeeded, failed=entry.failed) for entry in self._entries]

    def act(self) -> float:
        """Note what has ended and start what is due; return the seconds after which to come again at the latest."""
        return min((self._act(entry) for entry in self._entries), default=GLANCE)

    def _act(self, entry: _Entry) -> float:
        if entry.shot is not None and entry.shot.has_ended:
            self._ended(entry, failure=entry.shot.failure())
        if entry.shot is None and self._is_due(entry):
            self._begin(entry)
        now = self._clock()
        if entry.shot is None:
            return min(GLANCE, max(0.0, entry.due - now), self._until_old(entry))
        left = entry.began + PATIENCE - now
        if left <= 0:
            self._kill(entry.shot.name)
        # A killed one wakes us by its end.
        return min(GLANCE, left) if left > 0 else GLANCE

    def _is_due(self, entry: _Entry) -> bool:
        return self._clock() >= entry.due or self._until_old(entry) <= 0

    def _until_old(self, entry: _Entry) -> float:
        """Seconds until its credential gets old, by the wall clock; after a failure that is no reason to hurry."""
        if entry.due_by_wall is None or entry.failures:
            return GLANCE
        return max(0.0, entry.due_by_wall - self._wall())

    def _begin(self, entry: _Entry) -> None:
        entry.began = self._clock()
        try:
            entry.shot = self._start(entry.task.process)
        except Failure as failure:
            self._ended(entry, failure=failure)

    def _ended(self, entry: _Entry, *, failure: Failure | None) -> None:
        entry.shot = None
        now, draw = self._clock(), self._draw()
        if failure is None:
            entry.failures = 0
            entry.succeeded += 1
            entry.due = entry.began + pause(entry.task, failures=0, draw=draw)
            self._note_life(entry)
            lines.debug("task done", part=entry.task.name)
            return
        entry.failures += 1
        entry.failed += 1
        entry.due = now + pause(entry.task, failures=entry.failures, draw=draw)
        life = self._life(entry.task)
        expires = {} if life is None else {"expires": stamp(life.ends)}
        lines.warning(
            "task failed, tried again",
            part=entry.task.name,
            reason=failure.message,
            count=entry.failures,
            **expires,
        )

    def _note_life(self, entry: _Entry) -> None:
        """When its credential gets old; one that is old from the start must not keep us busy."""
        life, share = self._life(entry.task), SHARE * (1 - JITTER * self._draw())
        entry.due_by_wall = None if life is None else max(life.due(share), self._wall() + entry.task.retry)
