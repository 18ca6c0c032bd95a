"""What is passed on of a process's stderr, and what is kept as the cause of its failure."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from krun_launch.said import Said

FAILED = b"krun-token: error: the API server does not answer\nhint: look at it\n"


def heard(*pieces: bytes, is_failure: bool = True) -> tuple[str, str, bytes]:
    """Cause, hint and what was passed on."""
    passed: list[bytes] = []
    said = Said(write=passed.append)
    for piece in pieces:
        said.feed(piece)
    said.finish(is_failure=is_failure)
    return said.cause, said.hint, b"".join(passed)


def test_last_failure_and_its_hint_are_kept_and_all_else_is_passed_on() -> None:
    assert heard(b"one\n", FAILED) == ("the API server does not answer", "look at it", b"one\n")


@pytest.mark.parametrize("text", [FAILED + b"went on\n", b"a: error: b\nhint: c\nhint: d\n", b"hint: alone\n"])
def test_failure_that_is_not_the_last_word_is_passed_on_like_any_line(text: bytes) -> None:
    assert heard(text) == ("", "", text)


def test_only_the_last_of_two_failures_is_kept() -> None:
    assert heard(b"a: error: first\n", b"a: error: second") == ("second", "", b"a: error: first\n")


def test_who_has_not_failed_has_no_cause() -> None:
    assert heard(FAILED, is_failure=False) == ("", "", FAILED)


def test_line_without_an_end_is_passed_on_before_it_fills_the_memory() -> None:
    passed: list[bytes] = []
    said = Said(write=passed.append)
    for _ in range(100):
        said.feed(b"x" * 1000)
    assert sum(len(piece) for piece in passed) > 80000


@given(st.lists(st.sampled_from([b"a: error: b\n", b"hint: c\n", b"d\n", b"\xff", b"\n", b"e"])), st.integers(1, 9))
def test_nothing_is_lost_however_it_comes(lines: list[bytes], size: int) -> None:
    text = b"".join(lines)
    pieces = [text[at : at + size] for at in range(0, len(text), size)]
    assert heard(*pieces) == heard(text)
    _, _, passed = heard(*pieces, is_failure=False)
    assert passed == text + (b"" if not text or text.endswith(b"\n") else b"\n")
