"""dotenv: what is written reads back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from krun_discover import dotenv
from krun_discover.errors import Malformed

NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_.]{0,8}", fullmatch=True)
VALUES = st.text(st.characters(exclude_characters="\r\0", exclude_categories=["Cs"]), max_size=30)


@given(st.dictionaries(NAMES, VALUES.filter(lambda value: "\\n" not in value), max_size=5))
def test_what_is_written_reads_back(values: dict[str, str]) -> None:
    text = dotenv.render(values)
    assert dotenv.parse(text, path="f") == values
    assert text.count("\n") == len(values)


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        values = dotenv.parse(text, path="f")
    except Malformed:
        return
    assert all(isinstance(value, str) for value in values.values())


def test_a_pem_bundle_is_one_line_with_its_breaks_written_out() -> None:
    assert dotenv.render({"X": "-----BEGIN\r\nabc\n-----END\n"}) == "X=-----BEGIN\\nabc\\n-----END\\n\n"


def test_comments_and_empty_lines_are_passed_over_and_quotes_are_kept() -> None:
    assert dotenv.parse("# c\n\nA=1\r\n  B='x y'=2 \nC=\n", path="f") == {"A": "1", "B": "'x y'=2 ", "C": ""}


@pytest.mark.parametrize("line", ["A", "export A=1", "=x", "A =1", "[1]"])
def test_a_line_that_is_no_assignment_is_named(line: str) -> None:
    with pytest.raises(Malformed, match="f: line 2 is not NAME=VALUE"):
        dotenv.parse(f"X=1\n{line}\n", path="f")
