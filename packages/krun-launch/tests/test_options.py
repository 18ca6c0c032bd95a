"""What is read without click is what click reads; all else is left to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from krun_launch import command, options, run
from krun_launch.options import Options

TEXTS = st.sampled_from(
    ["env.json", "-", "--", "", "none", "80", "0", "2.5", "nan", "1e3", "86401", "debug", "json", "app", "-x", "a b"]
)
NAMES = [*options.VARIABLES, options.ENV, *options.SWITCHES, "--help", "--lo", "-h"]
ENVIRONS = st.dictionaries(
    st.sampled_from([options.LEVEL, options.FORMAT, "KRUN_GRACE"]), st.sampled_from(["", "debug", "text", "x", "7"])
)


def lines() -> st.SearchStrategy[list[str]]:
    flag = st.sampled_from(NAMES)
    pair = st.tuples(flag, TEXTS).map(list)
    glued = st.tuples(flag, TEXTS).map(lambda both: ["=".join(both)])
    parts = st.one_of(pair, pair, glued, flag.map(lambda one: [one]), TEXTS.map(lambda one: [one]))
    return st.lists(parts, max_size=5).map(lambda found: [word for part in found for word in part])


def by_click(arguments: Sequence[str], environ: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> Options:
    seen: list[Options] = []
    for name in (options.LEVEL, options.FORMAT, *options.VARIABLES.values()):
        monkeypatch.delenv(name, raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)

    def note(asked: Options) -> int:
        seen.append(asked)
        return 0

    monkeypatch.setattr(run, "run", note)
    command.command.main(list(arguments), prog_name="krun-launch", standalone_mode=False)
    (asked,) = seen
    return asked


@settings(max_examples=500)
@given(arguments=lines(), environ=ENVIRONS)
@example(arguments=["--env", "-", "--", "app", "--flag"], environ={})
@example(arguments=["--env=-", "--grace=2.5", "app", "--", "--grace"], environ={"KRUN_GRACE": "7"})
@example(arguments=["--rules", "--no-env", "--log-level", "debug"], environ={"KRUN_LOG_FORMAT": "json"})
@example(arguments=["--init", "--", "sh", "-c", "x"], environ={})
@example(arguments=["--status-port", "80", "-"], environ={})
def test_what_is_read_without_click_click_reads_the_same(arguments: list[str], environ: dict[str, str]) -> None:
    found = options.read(arguments, environ)
    if found is not None:
        with pytest.MonkeyPatch.context() as patch:
            assert by_click(arguments, environ, patch) == found


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--", "app", "--flag"],
        ["app"],
        ["--no-env", "--mode", "none", "--", "app"],
        ["--env", "/dev/fd/3", "--", "app"],
        ["--rules", "--env", "/dev/fd/3", "--"],
        ["--dry-run", "--grace=5"],
        ["--init", "--", "krun", "app"],
    ],
)
def test_the_forms_of_every_day_need_no_click(arguments: list[str]) -> None:
    assert options.read(arguments, {options.LEVEL: "warning", options.FORMAT: "json"}) is not None


@pytest.mark.parametrize(
    ("arguments", "environ"),
    [
        (["--help"], {}),
        (["--version"], {}),
        ([], {"_KRUN_LAUNCH_COMPLETE": "bash_source"}),
        ([], {options.LEVEL: "loud"}),
        (["--log-format", "xml"], {}),
        (["--grace", "long"], {}),
        (["--status-port", "0"], {}),
        (["--env"], {}),
        (["--env", "a", "--no-env"], {}),
        (["--dry-run", "--rules"], {}),
        (["--init"], {}),
        (["--init", "--dry-run", "app"], {}),
        (["--mode", "none", "--mode", "static"], {}),
        (["--unknown"], {}),
        (["-x"], {}),
    ],
)
def test_help_mistakes_and_rare_forms_are_left_to_click(arguments: list[str], environ: dict[str, str]) -> None:
    assert options.read(arguments, environ) is None
