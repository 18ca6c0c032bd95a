"""Records: frozen, keyword-only, equal by value, and silent about what is hidden."""

from __future__ import annotations

import pytest

from krun_discover.record import NONE, Record


class Base(Record, hidden=("secret",)):
    name: str
    secret: str = "canary"


class More(Base, hidden=("deeper",)):
    deeper: str = ""
    call: object = staticmethod(len)


def test_a_record_is_what_was_said_and_defaults_for_the_rest() -> None:
    one = More(name="a", deeper="canary")
    assert (one.name, one.secret, one.deeper) == ("a", "canary", "canary")
    assert one == More(name="a", deeper="canary")
    assert one != More(name="b")
    assert len({one, More(name="a", deeper="canary"), one.but(name="c")}) == 2
    assert Base(name="a") != More(name="a")


def test_what_is_hidden_does_not_stand_in_its_repr() -> None:
    assert "canary" not in repr(More(name="a", deeper="canary"))
    assert repr(Base(name="a")) == "Base(name='a')"


def test_a_field_that_is_missing_unknown_or_written_to_is_an_error() -> None:
    with pytest.raises(TypeError, match="Base needs name"):
        Base()  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="Base has no nmae"):
        Base(name="a", nmae="b")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="Base has no nmae"):
        Base(name="a").but(nmae="b")
    with pytest.raises(AttributeError, match=r"Base\.name is frozen"):
        Base(name="a").name = "b"  # type: ignore[misc]


def test_a_default_function_is_not_bound_to_the_record() -> None:
    class Called(Record):
        free: object = lambda: True

    assert Called().free() is True  # type: ignore[operator]


def test_the_default_of_mappings_cannot_be_written_to() -> None:
    with pytest.raises(TypeError):
        NONE["a"] = 1  # type: ignore[index]
