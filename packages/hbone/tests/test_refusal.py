from __future__ import annotations

import pytest

from hbone.errors import Exit
from hbone.refusal import refusal
from hbone.urls import parse_url

URL = parse_url("https://b.example/_hbone/22")


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
    failure = refusal(URL, status=status, text="why", has_token=True)
    assert failure.exit_code == exit_code
    assert str(status) in failure.message
    assert str(URL) in failure.message
    assert "why" in failure.message
    assert failure.hint


def test_denied_names_audience_and_role_or_the_missing_token() -> None:
    assert "https://b.example" in refusal(URL, status=403, text="", has_token=True).hint
    assert "invoker" in refusal(URL, status=403, text="", has_token=True).hint
    assert "no ID token was sent" in refusal(URL, status=401, text="", has_token=False).hint


def test_servers_text_forges_no_lines() -> None:
    message = refusal(URL, status=500, text="a\nhbone: error: b\x1b[2J" + "x" * 1000, has_token=False).message
    assert message.isprintable()
    assert len(message) < 300
