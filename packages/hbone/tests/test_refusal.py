"""What a refused tunnel says: by status, and of the token that was sent with it."""

from __future__ import annotations

import base64
import json
import time

import pytest

from hbone.errors import Exit
from hbone.refusal import refusal
from hbone.urls import parse_url

URL = parse_url("https://b.example/_hbone/22")


def token(**claims: object) -> str:
    middle = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    return f"canary-head.{middle}.canary-signature"


TOKEN = token(aud="https://b.example", email="a@b.example", exp=time.time() + 86400)


@pytest.mark.parametrize(
    ("status", "exit_code"),
    [
        (401, Exit.DENIED),
        (403, Exit.DENIED),
        (404, Exit.MISCONFIGURED),
        (405, Exit.MISCONFIGURED),
        (429, Exit.UNREACHABLE),
        (500, Exit.UNREACHABLE),
        (502, Exit.UNREACHABLE),
        (503, Exit.UNREACHABLE),
        (504, Exit.DEADLINE),
    ],
)
def test_status_says_what_failed_where_and_how_to_go_on(status: int, exit_code: int) -> None:
    failure = refusal(URL, status=status, text="why", token=TOKEN)
    assert failure.exit_code == exit_code
    assert str(status) in failure.message
    assert str(URL) in failure.message
    assert "why" in failure.message
    assert failure.hint


def test_denied_names_audience_and_role_or_the_missing_token() -> None:
    assert "https://b.example" in refusal(URL, status=403, text="", token=TOKEN).hint
    assert "invoker" in refusal(URL, status=403, text="", token=TOKEN).hint
    assert "no ID token was sent" in refusal(URL, status=401, text="", token=None).hint


def test_servers_text_forges_no_lines() -> None:
    message = refusal(URL, status=500, text="a\nhbone: error: b\x1b[2J" + "x" * 1000, token=None).message
    assert message.isprintable()
    assert len(message) < 300


def test_denied_tells_audience_email_and_expiry_of_the_token_and_never_the_token() -> None:
    sent = token(aud="https://c.example", email="who@c.example", exp=1_700_000_000)
    hint = refusal(URL, status=401, text="", token=sent).hint
    assert "audience https://c.example, email who@c.example, expires 2023-11-14T22:13:20Z, which is over" in hint
    assert "canary" not in hint
    assert "over" not in refusal(URL, status=401, text="", token=TOKEN).hint


@pytest.mark.parametrize(
    ("claims", "told"),
    [
        ({"aud": ["https://c.example", "https://d.example"]}, "audience https://c.example or https://d.example, "),
        ({"x": 1}, "audience (none), email (none), expires (never said)"),
        ({"aud": 7, "email": {}, "exp": "soon"}, "audience (none), email (none), expires (never said)"),
        ({"exp": 1e300}, "expires (never said)"),
        ({"aud": "a\nhbone: error: b", "email": "x" * 10_000}, "audience a hbone: error: b, "),
    ],
)
def test_claims_of_any_kind_are_told_on_one_line(claims: dict[str, object], told: str) -> None:
    hint = refusal(URL, status=403, text="", token=token(**claims)).hint
    assert told in hint
    assert hint.isprintable()
    assert len(hint) < 700


def test_denied_with_an_access_token_says_that_it_is_none_of_the_right_kind() -> None:
    hint = refusal(URL, status=403, text="", token="ya29.canary").hint
    assert "no ID token" in hint
    assert "canary" not in hint
