"""Who of several workers leaves a connection to another: never one who may be the only one that was woken."""

from __future__ import annotations

import mmap

import pytest

from hbone import shares
from hbone.shares import Shares


def workers(count: int, *, slack: int = 1) -> list[Shares]:
    memory = mmap.mmap(-1, shares.size(count))
    return [Shares(memory, number=number, slack=slack) for number in range(count)]


def line_up(*in_order: Shares) -> None:
    for one in in_order:
        one.will_wait()
        one.waits()


def test_who_has_more_leaves_it_to_one_with_less_who_waits_before() -> None:
    one, other = workers(2)
    one.count = 1
    line_up(other, one)
    assert one.is_anothers()
    assert not other.is_anothers()
    line_up(other)  # it went to the end: one is the first now, and so may be the only one that was woken
    assert not one.is_anothers()
    assert one.has_more()


def test_who_goes_to_the_end_at_the_same_time_is_before_nobody() -> None:
    """Which of the two the kernel took first is not known."""
    one, other = workers(2)
    one.count = 5
    one.will_wait()
    other.will_wait()
    other.waits()
    one.waits()
    assert not one.is_anothers()


def test_who_is_not_in_the_line_gets_nothing() -> None:
    one, other = workers(2)
    one.count = 100
    line_up(other, one)
    other.leaves()
    assert not one.is_anothers()
    assert not one.has_more()


def test_who_has_less_stays_where_it_is() -> None:
    one, other = workers(2)
    one.count, other.count = 3, 1
    line_up(one, other)
    assert other.has_less()
    assert not one.has_less()


@pytest.mark.parametrize(
    ("slack", "mine", "others", "is_more"),
    [(1, 1, 1, False), (1, 2, 1, True), (8, 7, 0, False), (8, 8, 0, True), (8, 132, 100, True), (8, 119, 100, False)],
)
def test_so_much_more_is_not_even(slack: int, mine: int, others: int, *, is_more: bool) -> None:
    one, other = workers(2, slack=slack)
    one.count, other.count = mine, others
    line_up(other, one)
    assert one.is_anothers() is is_more


def test_one_that_is_gone_has_nothing_and_is_not_waited_for() -> None:
    one, other, third = workers(3)
    for each in (one, other, third):
        each.count = 9
    line_up(one, other, third)
    one.has_gone()
    assert one.count == 0
    assert not third.is_anothers()
