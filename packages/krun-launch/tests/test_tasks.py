"""When a task is run: on time, alone, later after a failure, sooner when a credential gets old. Its clocks are ours."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from krun_launch.errors import Failure, Misconfigured
from krun_launch.expiry import Life
from krun_launch.plan import Task
from krun_launch.spawn import ProcessSpec
from krun_launch.tasks import GLANCE, PATIENCE, Count, Schedule, pause

TASK = Task(
    name="token",
    process=ProcessSpec(name="krun-token", argv=("krun-token",), env={}),
    every=600.0,
    retry=5.0,
    renews="token",
)


@dataclass(kw_only=True)
class Run:
    """One run, of which the test tells how it ends."""

    name: str
    has_ended: bool = False
    error: Failure | None = None

    def failure(self) -> Failure | None:
        return self.error


@dataclass(kw_only=True)
class World:
    """Clocks, what was started, and a schedule that lives by them."""

    life: Life | None = None
    now: float = 1000.0
    wall: float = 50000.0
    cannot_start: bool = False
    runs: list[Run] = field(default_factory=list)
    killed: list[str] = field(default_factory=list)
    schedule: Schedule = field(init=False)

    def __post_init__(self) -> None:
        self.schedule = Schedule(
            [TASK],
            start=self.start,  # type: ignore[arg-type] # a run that needs no process
            kill=self.killed.append,
            life=lambda task: self.life,
            clock=lambda: self.now,
            wall=lambda: self.wall,
            draw=lambda: 0.0,
        )

    def start(self, spec: ProcessSpec) -> Run:
        if self.cannot_start:
            raise Misconfigured("not there")
        self.runs.append(Run(name=spec.name))
        return self.runs[-1]

    def pass_time(self, seconds: float) -> None:
        """Let time go by, and act as often as the schedule asks for it."""
        until = self.now + seconds
        for _ in range(100000):
            left = self.schedule.act()
            assert left > 0
            step = min(left, until - self.now)
            if step <= 0:
                return
            self.now += step
            self.wall += step
        raise AssertionError("it never rests")

    def finish(self, error: Failure | None = None) -> None:
        """The run that is under way ends."""
        self.runs[-1].error = error
        self.runs[-1].has_ended = True
        self.schedule.act()


def test_first_run_is_one_whole_pause_after_the_start() -> None:
    world = World()
    world.pass_time(599)
    assert world.runs == []
    world.pass_time(2)
    assert len(world.runs) == 1


def test_next_run_is_counted_from_the_last_start() -> None:
    world = World()
    world.pass_time(600)
    world.pass_time(50)
    world.finish()
    world.pass_time(549)
    assert len(world.runs) == 1
    world.pass_time(2)
    assert len(world.runs) == 2


def test_there_are_never_two_at_once() -> None:
    world = World()
    world.pass_time(600)
    world.pass_time(PATIENCE - 1)
    assert len(world.runs) == 1
    assert world.killed == []


def test_run_that_does_not_end_is_killed_and_tried_again() -> None:
    world = World()
    world.pass_time(600)
    world.pass_time(PATIENCE + 1)
    assert set(world.killed) == {"krun-token"}
    world.finish(Misconfigured("killed"))
    world.pass_time(5)
    assert len(world.runs) == 2


def test_failures_are_tried_again_later_and_later_but_after_a_minute_at_the_latest() -> None:
    world = World()
    world.pass_time(600)
    waited = []
    for _ in range(10):
        world.finish(Misconfigured("no"))
        begun, runs = world.now, len(world.runs)
        while len(world.runs) == runs:
            world.pass_time(1)
        waited.append(round(world.now - begun))
    assert waited == [5, 10, 20, 40, 60, 60, 60, 60, 60, 60]
    assert world.schedule.counts == [Count(name="token", succeeded=0, failed=10)]


def test_each_failure_is_one_warning_with_its_reason(logged: Callable[[], list[dict[str, Any]]]) -> None:
    world = World(life=Life(begins=50000, ends=53600))
    world.pass_time(600)
    world.finish(Misconfigured("refused"))
    (line,) = logged()
    del line["time"]
    assert line == {
        "severity": "WARNING",
        "tool": "test",
        "message": "task failed, tried again",
        "part": "token",
        "reason": "refused",
        "count": 1,
        "expires": "1970-01-01T14:53:20Z",
    }


def test_success_after_failures_goes_back_to_the_whole_pause() -> None:
    world = World()
    world.pass_time(600)
    world.finish(Misconfigured("no"))
    world.pass_time(5)
    world.finish()
    world.pass_time(599)
    assert len(world.runs) == 2
    world.pass_time(2)
    assert len(world.runs) == 3
    assert world.schedule.counts == [Count(name="token", succeeded=1, failed=1)]


def test_what_cannot_be_started_is_a_failure_like_any_other() -> None:
    world = World(cannot_start=True)
    world.pass_time(600 + 5 + 10)
    assert world.schedule.counts == [Count(name="token", succeeded=0, failed=3)]


def test_credential_that_lives_shortly_is_renewed_at_four_fifths_of_its_life() -> None:
    world = World(life=Life(begins=50000, ends=50100))
    world.pass_time(79)
    assert world.runs == []
    world.pass_time(2)
    assert len(world.runs) == 1
    world.life = Life(begins=50081, ends=50181)
    world.finish()
    world.pass_time(78)
    assert len(world.runs) == 1
    world.pass_time(3)
    assert len(world.runs) == 2


def test_clock_that_jumps_ahead_makes_a_credential_old_within_a_glance() -> None:
    world = World(life=Life(begins=50000, ends=53600))
    world.schedule.act()
    world.wall += 3000
    world.pass_time(GLANCE)
    assert len(world.runs) == 1


def test_credential_that_is_old_from_the_start_keeps_nobody_busy() -> None:
    world = World(life=Life(begins=0, ends=1))
    for _ in range(4):
        world.pass_time(5)
        world.finish()
    assert len(world.runs) == 4


def test_failure_with_an_old_credential_waits_like_any_other() -> None:
    world = World(life=Life(begins=0, ends=50001))
    world.pass_time(5)
    world.finish(Misconfigured("no"))
    world.pass_time(4)
    assert len(world.runs) == 1
    world.pass_time(1)
    assert len(world.runs) == 2


@given(st.integers(0, 100), st.floats(0, 1), st.floats(1, 86400), st.floats(0.1, 600))
def test_pause_is_never_longer_than_the_whole_one_nor_nothing(
    failures: int, draw: float, every: float, retry: float
) -> None:
    task = Task(name="x", process=TASK.process, every=every, retry=retry)
    assert 0 < pause(task, failures=failures, draw=draw) <= every
