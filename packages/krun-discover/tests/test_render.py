"""The formats, and the account for a person."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from krun_discover import explain, render
from krun_discover.resolve import Attempt, Resolved


def test_json_is_one_sorted_object_on_one_line() -> None:
    assert render.environment({"B": "2", "A": 'x"\n'}, style="json") == '{"A": "x\\"\\n", "B": "2"}\n'


@given(st.dictionaries(st.text(), st.text()))
def test_json_carries_everything(values: dict[str, str]) -> None:
    text = render.environment(values, style="json")
    assert json.loads(text) == values
    assert text.isascii()
    assert text.count("\n") == 1


def test_shell_quotes_and_leaves_out_what_cannot_be_exported() -> None:
    values = {"B": "it's $x", "A": "", "PORT_a.b": "1"}
    assert render.environment(values, style="shell") == "export A=''\nexport B='it'\\''s $x'\n"
    assert render.unsayable(values) == ["PORT_a.b"]


def _attempt(source: str, value: str = "", note: str = "") -> Attempt:
    return Attempt(source=source, value=value, note=note, failed=False)


def test_explain_tells_the_winner_the_losers_and_what_was_tried() -> None:
    won = Resolved(
        name="PROJECT_ID",
        value="demo",
        source="metadata",
        tried=(_attempt("environment", note="not set"), _attempt("metadata", "demo")),
        lost=(_attempt("last", "other\nline"),),
    )
    silent = Resolved(name="XDS_ADDR", value="", source="", tried=(_attempt("environment", note="not set"),), lost=())
    text = explain.values([won, silent], dropped=["PATH", "a\nb"], mesh="MESH=file:f", remark="fine")
    assert text == (
        explain.LEGEND + "\n"
        "PROJECT_ID=demo\n"
        "  - environment: not set\n"
        "  > metadata\n"
        '  x last: "other\\nline"\n'
        "\n"
        "Set nowhere, and nothing else tells them:\n  XDS_ADDR\n"
        "\n"
        'Dropped, as MESH=file:f may not set them:\n  PATH "a\\nb"\n'
        "\n"
        "Metadata server: fine\n"
    )


def test_long_lists_are_wrapped_at_eighty_columns() -> None:
    text = explain.values([], dropped=[f"NAME_{i}" for i in range(50)], mesh="MESH=file:f", remark="fine")
    assert max(len(line) for line in text.splitlines()) <= 80
    assert all(f"NAME_{i}" in text.split() for i in range(50))
