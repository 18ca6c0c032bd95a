"""The precedence engine: order, laziness, what lost, what was tried."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from krun_discover.resolve import UNASKED, Answer, Candidate, Known, Resolution, Source


class Table:
    """A source with values of its own; it notes what it is asked. ``cost``: asking it takes a request."""

    def __init__(self, label: str, *, cost: bool = False, **values: str) -> None:
        self.label = label
        self.cost = cost
        self.values = values
        self.asked: list[str] = []

    def names(self) -> Iterable[str]:
        return self.values

    def candidates(self, name: str, known: Known) -> Iterator[Candidate]:
        def ask() -> Answer:
            self.asked.append(name)
            return Answer(value=self.values.get(name, ""), note="" if name in self.values else "not set")

        yield Candidate(source=self.label, ask=ask, free=lambda: not self.cost)


class Derived:
    """A source that makes B out of A."""

    def names(self) -> Iterable[str]:
        return []

    def candidates(self, name: str, known: Known) -> Iterator[Candidate]:
        if name == "B":
            yield Candidate(
                source="rule",
                ask=lambda: Answer(value=known.value("A"), failed=known.failed("A")),
                free=lambda: known.peek("A") is not None,
            )


def test_the_first_source_with_a_value_wins_and_the_others_are_told_as_lost() -> None:
    sources = [Table("one"), Table("two", A="2"), Table("three", A="3"), Table("four", A="4")]
    found = Resolution(sources=sources).find("A")
    assert (found.value, found.source) == ("2", "two")
    assert [(attempt.source, attempt.value) for attempt in found.lost] == [("three", "3"), ("four", "4")]
    assert [(attempt.source, attempt.note) for attempt in found.tried] == [("one", "not set"), ("two", "")]


def test_a_costly_source_after_the_winner_is_not_asked() -> None:
    costly = Table("metadata", cost=True, A="2")
    found = Resolution(sources=[Table("one", A="1"), costly, Table("last", A="3")]).find("A")
    assert costly.asked == []
    assert [attempt.source for attempt in found.lost] == ["last"]


def test_a_costly_source_is_asked_once_when_nothing_before_it_has_a_value() -> None:
    costly = Table("metadata", cost=True, A="2")
    resolution = Resolution(sources=[Table("one"), costly])
    assert [resolution.value("A"), resolution.value("A"), resolution.find("A").source] == ["2", "2", "metadata"]
    assert costly.asked == ["A"]


def test_a_glance_takes_only_what_is_free() -> None:
    costly = Table("metadata", cost=True, A="2")
    found = Resolution(sources=[costly]).glance("A")
    assert (found.value, found.tried[0].note, costly.asked) == ("", UNASKED, [])
    assert Resolution(sources=[costly, Table("last", A="3")]).glance("A").value == "3"


def test_a_glance_shows_what_a_rule_had_to_ask_for() -> None:
    resolution = Resolution(sources=[Table("metadata", cost=True, A="2"), Derived()])
    assert resolution.find("B").value == "2"
    assert resolution.glance("A").value == "2"


def test_a_rule_whose_input_costs_nothing_is_told_as_lost() -> None:
    sources: list[Source] = [Table("one", A="1", B="b"), Table("metadata", cost=True), Derived()]
    assert [attempt.value for attempt in Resolution(sources=sources).find("B").lost] == ["1"]


def test_a_rule_whose_input_would_cost_a_request_is_not_asked_when_it_has_lost() -> None:
    costly = Table("metadata", cost=True, A="1")
    assert Resolution(sources=[Table("one", B="b"), costly, Derived()]).find("B").lost == ()
    assert costly.asked == []


def test_rules_that_go_in_a_circle_are_a_bug_that_is_named() -> None:
    class Circle(Derived):
        def candidates(self, name: str, known: Known) -> Iterator[Candidate]:
            yield Candidate(source="rule", ask=lambda: Answer(value=known.value(name)))

    with pytest.raises(ValueError, match="A is derived from itself"):
        Resolution(sources=[Circle()]).find("A")


def test_a_failure_before_the_winner_marks_the_result() -> None:
    class Broken(Derived):
        def candidates(self, name: str, known: Known) -> Iterator[Candidate]:
            yield Candidate(source="broken", ask=lambda: Answer(note="no answer", failed=True))

    assert Resolution(sources=[Broken(), Table("last", A="1")]).find("A").failed
    assert not Resolution(sources=[Table("first", A="1"), Broken()]).find("A").failed


@given(st.lists(st.tuples(st.booleans(), st.sampled_from(["", "x", "y"])), max_size=8))
def test_any_order_of_sources_gives_the_first_value_and_asks_nothing_costly_behind_it(
    rows: list[tuple[bool, str]],
) -> None:
    sources = [Table(str(i), cost=cost, **({"A": value} if value else {})) for i, (cost, value) in enumerate(rows)]
    found = Resolution(sources=sources).find("A")
    winner = next((i for i, (_, value) in enumerate(rows) if value), None)
    assert found.source == ("" if winner is None else str(winner))
    for index, source in enumerate(sources):
        before = winner is None or index <= winner
        assert source.asked == (["A"] if before or not source.cost else [])
