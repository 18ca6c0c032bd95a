"""What is read without click is what click reads; all else is left to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import click
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from krun_discover import command, options, run, token_command, token_options, token_run
from krun_discover.options import Options
from krun_discover.token_options import Asked

TEXTS = st.sampled_from(
    [
        "json",
        "shell",
        "x",
        "5",
        "0640",
        "5:7",
        "debug",
        "0",
        "nan",
        "1e3",
        "3601",
        "0.5",
        "",
        "-1",
        "--",
        "--explain",
        "a b",
        "gke://p",
        "7s",
    ]
)
DISCOVER = ["--mesh", "--format", "--context", "--timeout", "--explain", "--log-level", "doctor", "-h", "--fo"]
TOKEN = ["--audience", "--namespace", "--service-account", "--context", "--expiration", "--to", "--owner", "--watch"]
TOKEN += ["--explain", "--scope", "--timeout", "--mode"]


def lines(names: Sequence[str]) -> st.SearchStrategy[list[str]]:
    flag = st.sampled_from(names)
    pair = st.tuples(flag, TEXTS).map(list)
    glued = st.tuples(flag, TEXTS).map(lambda both: ["=".join(both)])
    parts = st.one_of(pair, pair, glued, flag.map(lambda one: [one]), TEXTS.map(lambda one: [one]))
    return st.lists(parts, max_size=4).map(lambda found: [word for part in found for word in part])


ENVIRONS = st.dictionaries(
    st.sampled_from(["MESH", "WORKLOAD_NAMESPACE", "WORKLOAD_SERVICE_ACCOUNT", "KRUN_LOG_LEVEL", "KRUN_LOG_FORMAT"]),
    st.sampled_from(["", "demo", "debug", "json"]),
)


def by_click(
    start: click.Command, tool: str, arguments: list[str], environ: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("MESH", "WORKLOAD_NAMESPACE", "WORKLOAD_SERVICE_ACCOUNT", "KRUN_LOG_LEVEL", "KRUN_LOG_FORMAT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    start.main(arguments, prog_name=tool, standalone_mode=False)


@settings(max_examples=300)
@given(arguments=lines(DISCOVER), environ=ENVIRONS)
@example(arguments=[], environ={})
@example(arguments=["--format", "shell", "--mesh=gke://p", "--timeout", "0.5", "--explain"], environ={"MESH": "demo"})
def test_what_krun_discover_reads_by_itself_click_reads_the_same(arguments: list[str], environ: dict[str, str]) -> None:
    found = options.read(arguments, environ)
    if found is not None:
        seen: list[Options] = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(run, "run", seen.append)
            by_click(command.command, "krun-discover", arguments, environ, patch)
        assert seen == [found]


@settings(max_examples=300)
@given(kind=st.sampled_from(["kubernetes", "id", "access", "ids"]), arguments=lines(TOKEN), environ=ENVIRONS)
@example(kind="kubernetes", arguments=["--audience", "a", "--audience=b", "--to", "f", "--watch"], environ={})
@example(kind="kubernetes", arguments=["--audience", "a"], environ={"WORKLOAD_NAMESPACE": "demo"})
@example(kind="kubernetes", arguments=["--audience", "a", "--to", "f", "--owner", "5:7", "--mode=0640"], environ={})
@example(kind="access", arguments=[], environ={"KRUN_LOG_LEVEL": "warning", "KRUN_LOG_FORMAT": "text"})
@example(kind="id", arguments=["--audience=https://a/?b=c", "--explain"], environ={})
@example(kind="access", arguments=["--scope", "a", "--scope", "b"], environ={})
def test_what_krun_token_reads_by_itself_click_reads_the_same(
    kind: str, arguments: list[str], environ: dict[str, str]
) -> None:
    found = token_options.read([kind, *arguments], environ)
    if found is not None:
        seen: list[Asked] = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(token_run, "run", seen.append)
            by_click(token_command.command, "krun-token", [kind, *arguments], environ, patch)
        assert seen == [found]


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--format", "dotenv"],
        ["--format=shell"],
        ["--explain"],
        ["--mesh", "file:mesh.json"],
        ["--context=kind", "--timeout", "2.5"],
    ],
)
def test_the_forms_of_every_day_need_no_click(arguments: list[str]) -> None:
    assert options.read(arguments, {}) is not None


@pytest.mark.parametrize(
    "arguments",
    [
        ["kubernetes", "--audience", "istio-ca"],
        ["kubernetes", "--audience=istio-ca", "--to", "token", "--watch"],
        ["kubernetes", "--audience", "a", "--to", "token", "--owner", "1337:1337", "--timeout", "30"],
        ["kubernetes", "--audience", "a", "--namespace", "b", "--service-account", "c", "--context", "d"],
        ["id", "--audience", "https://web.a.run.app"],
        ["access"],
    ],
)
def test_the_tokens_of_every_day_need_no_click(arguments: list[str]) -> None:
    assert token_options.read(arguments, {}) is not None


ASKED: list[tuple[Callable[..., object], list[str], dict[str, str]]] = [
    (options.read, [], {"KRUN_LOG_LEVEL": "loud"}),
    (options.read, [], {"KRUN_LOG_FORMAT": "xml"}),
    (options.read, [], {"_KRUN_DISCOVER_COMPLETE": "bash_source"}),
    (options.read, ["--help"], {}),
    (options.read, ["--format", "xml"], {}),
    (options.read, ["--timeout", "nan"], {}),
    (options.read, ["--mesh"], {}),
    (options.read, ["--mesh", "--explain"], {}),
    (token_options.read, [], {}),
    (token_options.read, ["kubernetes"], {}),
    (token_options.read, ["id", "--audience", "a b"], {}),
    (token_options.read, ["access", "--watch"], {}),
    (token_options.read, ["access", "--to", "f", "--explain"], {}),
    (token_options.read, ["access", "--to", "f", "--mode", "0999"], {}),
    (token_options.read, ["access", "--to", "f", "--owner", "root"], {}),
    (token_options.read, ["access", "--owner", "1337"], {}),
]


@pytest.mark.parametrize(("read", "arguments", "environ"), ASKED)
def test_help_mistakes_and_rare_flags_are_left_to_click(
    read: Callable[..., object], arguments: list[str], environ: dict[str, str]
) -> None:
    assert read(arguments, environ) is None
