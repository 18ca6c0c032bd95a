"""What is read of tokens without their keys, and what of somebody else's text is shown."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from krun_discover import token_claims


def jwt(claims: object) -> str:
    words = [{"alg": "none"}, claims]
    parts = [base64.urlsafe_b64encode(json.dumps(word).encode()).rstrip(b"=").decode() for word in words]
    return ".".join([*parts, "c2ln"])


def test_a_jwt_tells_its_end_and_whom_it_is_for() -> None:
    token = jwt({"exp": 1700000000, "aud": "https://b"})
    assert token_claims.expires(token) == 1700000000
    assert token_claims.audiences(token) == ("https://b",)
    assert token_claims.audiences(jwt({"aud": ["a", "b"]})) == ("a", "b")


@pytest.mark.parametrize("end", [None, "soon", True, 1e300, float("nan"), [], {}])
def test_an_end_that_is_no_time_is_not_believed(end: object) -> None:
    assert token_claims.expires(jwt({"exp": end})) is None


@given(st.text())
def test_any_text_can_be_looked_at(text: str) -> None:
    token_claims.claims(text)
    token_claims.claims(f"a.{text}.c")
    token_claims.expires(text)
    assert token_claims.shown(text).isprintable()
    assert len(token_claims.shown(text)) <= token_claims.TEXT_LIMIT


@pytest.mark.parametrize("text", ["", "a b", "a\nb", "a\r\nX: y", "ä", "a,b", "<html>", '"a"'])
def test_what_could_break_a_header_is_no_token(text: str) -> None:
    assert not token_claims.is_token(text)


@pytest.mark.parametrize(
    "secret",
    ["ya29.c0AYnq-x_y.z", "1//0gAbCdEfGhIjKl", "GOCSPX-abc_def", jwt({"a": 1}), jwt({"a": 1}).rpartition(".")[0]],
)
def test_secrets_in_a_text_of_others_are_blacked_out_before_it_is_cut(secret: str) -> None:
    shown = token_claims.shown(f"the token '{secret}' is bad, {'x' * 400}")
    assert secret not in shown
    assert secret[:12] not in shown
    assert shown.startswith("the token '[secret]' is bad, xxx")
    assert secret[:8] not in token_claims.shown("y" * 290 + " " + secret)


def test_a_text_of_others_is_one_line_that_no_terminal_obeys() -> None:
    assert token_claims.shown("a\n\tb\x1b[2J") == "a b?[2J"
