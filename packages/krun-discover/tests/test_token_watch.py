"""The loop that keeps a token good, on a clock of its own."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from krun_discover.errors import Denied, Failure, Unreachable
from krun_discover.issued import Token
from krun_discover.token_watch import GLANCE, LAST_TRIES, LONGEST_PAUSE, Wake, Watch, stamp

LIFE = 3600.0
START = 1_700_000_000.0


@dataclass
class World:
    """Time, what is minted and written; ``at`` maps a moment (seconds since the start) to what happens then."""

    at: dict[float, Wake]
    now: float = START
    failing: list[tuple[float, float]] = field(default_factory=list)  # from, to
    failure: Failure = field(default_factory=lambda: Unreachable("nobody answers"))
    minted: list[float] = field(default_factory=list)
    tried: list[float] = field(default_factory=list)
    pauses: list[float] = field(default_factory=list)
    held: Token | None = None
    freeze: tuple[float, float] | None = None  # from when, for how long: the wall clock goes on

    def mint(self) -> Token:
        since = self.now - START
        self.tried.append(since)
        if any(begin <= since < end for begin, end in self.failing):
            raise self.failure
        self.minted.append(since)
        return Token(value="canary", expires=self.now + LIFE, source="a test")

    def write(self, token: Token) -> None:
        self.held = token

    def remove(self) -> None:
        self.held = None

    def pause(self, seconds: float) -> Wake:
        self.pauses.append(seconds)
        due = min((moment for moment in self.at if START + moment <= self.now + seconds), default=None)
        if due is not None:
            self.now = max(self.now, START + due)
            return self.at.pop(due)
        self.now += seconds
        if self.freeze and self.now - START >= self.freeze[0]:
            self.now += self.freeze[1]
            self.freeze = None
        return Wake.TIME

    def run(self) -> None:
        Watch(mint=self.mint, sink=self, pause=self.pause, clock=lambda: self.now, draw=lambda: 0.5).run()


def test_it_renews_at_80_percent_of_each_life_and_ends_when_told() -> None:
    world = World(at={10_000: Wake.END})
    world.run()
    assert world.minted == pytest.approx([0, 2880, 5760, 8640])
    assert world.held is not None


def test_it_looks_at_the_wall_clock_every_half_minute_so_that_a_freeze_is_noticed() -> None:
    world = World(at={20_000: Wake.END}, freeze=(1000, 10_000))
    world.run()
    assert max(world.pauses) <= GLANCE
    assert world.minted[1] == pytest.approx(11_000, abs=GLANCE + 1)


def test_a_clock_that_is_set_back_renews_at_once() -> None:
    world = World(at={100: Wake.END}, freeze=(30, -5000))
    world.run()
    assert len(world.minted) >= 2
    assert world.minted[1] < 0


def test_it_renews_now_when_told() -> None:
    world = World(at={100: Wake.RENEW, 200: Wake.RENEW, 300: Wake.END})
    world.run()
    assert world.minted == [0, 100, 200]


def test_the_first_failure_is_the_end_and_nothing_is_written() -> None:
    world = World(at={}, failing=[(0, 1)], failure=Denied("not permitted"))
    with pytest.raises(Denied):
        world.run()
    assert world.held is None
    assert world.tried == [0]


def test_while_the_old_token_is_good_it_tries_again_ever_more_slowly() -> None:
    world = World(at={4000: Wake.END}, failing=[(1, 3200)])
    world.run()
    gaps = [later - earlier for earlier, later in zip(world.tried[1:], world.tried[2:], strict=False)]
    assert gaps[:4] == pytest.approx([1, 2, 4, 8])
    assert max(gaps[:-1]) <= LONGEST_PAUSE
    assert world.minted[1] == pytest.approx(3200, abs=LONGEST_PAUSE)
    assert world.held is not None


def test_an_expired_token_is_removed_and_the_last_tries_are_counted() -> None:
    world = World(at={}, failing=[(1, 1e9)])
    with pytest.raises(Unreachable):
        world.run()
    assert world.held is None
    late = [moment for moment in world.tried if moment >= LIFE]
    assert len(late) == LAST_TRIES + 1
    assert late[0] == pytest.approx(LIFE)  # at its end, not up to a pause later


def test_after_a_wake_without_a_network_it_finds_back() -> None:
    world = World(at={20_000: Wake.END}, freeze=(1000, 8000), failing=[(5000, 9100)])
    world.run()
    assert world.held is not None
    assert world.minted[1] == pytest.approx(9100, abs=2 * LONGEST_PAUSE)


def test_a_token_that_hardly_lives_does_not_make_it_spin() -> None:
    world = World(at={10: Wake.END})
    watch = Watch(
        mint=lambda: Token(value="x", expires=world.now, source="a test"),
        sink=world,
        pause=world.pause,
        clock=lambda: world.now,
        draw=lambda: 0.5,
    )
    watch.run()
    assert len(world.pauses) < 20


def test_times_are_shown_in_utc() -> None:
    assert stamp(0) == "1970-01-01T00:00:00Z"
    assert stamp(1e30) == "9999-12-31T23:59:59Z"
