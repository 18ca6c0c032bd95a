"""What is taken as the environment, and what is refused with which words."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from krun_launch import envjson
from krun_launch.errors import Malformed, Misconfigured

NAMES = st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="="), min_size=1)
VALUES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))


@given(st.dictionaries(NAMES, VALUES))
def test_object_of_strings_is_taken_as_it_is(wanted: dict[str, str]) -> None:
    assert envjson.parse(json.dumps(wanted).encode(), name="stdin", is_whole=True) == wanted


@given(st.dictionaries(NAMES, VALUES), st.data())
def test_object_is_complete_at_its_end_and_not_before(wanted: dict[str, str], data: st.DataObject) -> None:
    text = json.dumps(wanted).encode()
    cut = data.draw(st.integers(0, len(text) - 1))
    assert envjson.parse(text[:cut], name="stdin", is_whole=False) is None
    assert envjson.parse(text, name="stdin", is_whole=False) == wanted


@given(st.binary())
def test_no_bytes_are_a_bug(data: bytes) -> None:
    refused = ""
    found: dict[str, str] | None = {}
    try:
        found = envjson.parse(data, name="stdin", is_whole=True)
    except (Malformed, Misconfigured) as error:
        refused = error.message
    assert found is not None
    assert refused == "" or refused.startswith("environment from stdin: ")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hello", "not a JSON object"),
        ("[1]", "not a JSON object"),
        ('"A"', "not a JSON object"),
        ('{"A": "b"', "not JSON"),
        ('{"A": "b"} {}', "more than one value"),
        ('{"A": 5}', "A: its value is no string"),
        ('{"A": null}', "A: its value is no string"),
        ('{"B": "x", "A": {"C": "d"}}', "A: its value is no string"),
        ('{"A=B": "c"}', "'A=B' is not the name of a variable"),
        ('{"": "c"}', "'' is not the name of a variable"),
        ('{"A": "\\u0000"}', "'A': no process can hold it"),
        ('{"A": "\\ud800"}', "'A': no process can hold it"),
        ('{"A": "b", "A": "b"}', "'A' is in it twice"),
        ("\ufeff[]", "not a JSON object"),
        ("{" * 100_000, "not JSON"),
    ],
)
def test_what_is_malformed_is_named(text: str, message: str) -> None:
    with pytest.raises(Malformed, match=message.replace("(", r"\(")):
        envjson.parse(text.encode(), name="stdin", is_whole=True)


def test_byte_order_mark_is_ignored() -> None:
    assert envjson.parse(b'\xef\xbb\xbf{"A": "b"}', name="stdin", is_whole=True) == {"A": "b"}


def test_bytes_that_are_no_text_are_malformed() -> None:
    with pytest.raises(Malformed, match="not JSON"):
        envjson.parse(b'{"A": "\xff"}', name="stdin", is_whole=True)


def test_environment_that_grows_without_end_is_refused() -> None:
    with pytest.raises(Malformed, match="more than"):
        envjson.parse(b'{"A": "' + b"x" * envjson.LIMIT, name="stdin", is_whole=False)


def test_nothing_means_that_the_program_before_the_pipe_failed() -> None:
    with pytest.raises(Misconfigured, match="the program before the pipe failed"):
        envjson.parse(b"\n", name="stdin", is_whole=True)


def test_set_variable_wins_and_an_empty_one_does_not() -> None:
    merged = envjson.merge(base={"A": "own", "B": ""}, found={"A": "theirs", "B": "theirs", "C": "theirs"})
    assert merged == {"A": "own", "B": "theirs", "C": "theirs"}
