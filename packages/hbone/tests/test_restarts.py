"""When a worker that died is started again, and when one is taken for dead."""

from __future__ import annotations

from hbone.restarts import LOOKS, PAUSES, STEADY, Pulse, Restarts

TIMEOUT = 30.0
STEP = TIMEOUT / LOOKS


def test_one_that_has_lived_is_followed_at_once_and_others_after_longer_and_longer_pauses() -> None:
    restarts = Restarts()
    assert [restarts.pause(lived=0.1) for _ in range(6)] == [*PAUSES, PAUSES[-1], PAUSES[-1]]
    assert restarts.pause(lived=STEADY) == 0
    assert restarts.pause(lived=0.1) == PAUSES[0]


def test_silence_is_an_end_when_it_has_lasted() -> None:
    pulse = Pulse(timeout=TIMEOUT, now=0.0)
    assert not any(pulse.is_gone(now=step * STEP) for step in range(LOOKS))
    assert pulse.is_gone(now=TIMEOUT)


def test_who_says_that_it_is_well_lives_on() -> None:
    pulse = Pulse(timeout=TIMEOUT, now=0.0)
    for step in range(100):
        pulse.feel(now=step * STEP)
        assert not pulse.is_gone(now=step * STEP)


def test_one_who_did_not_look_himself_for_long_waits_as_long_again() -> None:
    pulse = Pulse(timeout=TIMEOUT, now=0.0)
    hours = 7200.0
    assert not any(pulse.is_gone(now=hours + step * STEP) for step in range(LOOKS))
    assert pulse.is_gone(now=hours + TIMEOUT)
