"""What the documents show works: console examples are run, and command lines in sh blocks are understood."""

from __future__ import annotations

import doctest
import importlib
import re
import shlex
from pathlib import Path

import click
import pytest

from krun_testbed import processes, tables

DOCUMENTS = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "packages/*/README.md", "samples/**/*.md")
    for path in tables.ROOT.glob(pattern)
)


def blocks(path: Path, *languages: str) -> list[str]:
    """The fenced blocks of a document in one of the languages."""
    text = path.read_text(encoding="utf-8")
    return [code for name, code in re.findall(r"^```(\w+)\n(.*?)^```", text, re.M | re.S) if name in languages]


def invocations(code: str) -> list[list[str]]:
    """Our own commands in a block of shell, each with its arguments."""
    joined = re.sub(r"\\\n", " ", code)
    found = []
    lines = joined.splitlines()
    # In a console block, what is typed stands behind a prompt.
    typed = [line[2:] for line in lines if line.startswith("$ ")] or lines
    for line in typed:
        words = list(shlex.shlex(line, posix=True, punctuation_chars="|&;()<>"))
        while words:
            end = next((i for i, word in enumerate(words) if set(word) <= set("|&;()")), len(words))
            part, words = words[:end], words[end + 1 :]
            while part and re.fullmatch(r"[A-Za-z_]\w*=.*", part[0]):
                part = part[1:]
            if part and part[0] in tables.COMMANDS:
                found.append(part[: next((i for i, word in enumerate(part) if word[0] in "<>"), len(part))])
    return found


def name(path: Path) -> str:
    return str(path.relative_to(tables.ROOT))


@pytest.mark.parametrize("path", DOCUMENTS, ids=name)
def test_every_command_line_in_a_document_is_understood(path: Path) -> None:
    for code in blocks(path, "sh", "console", "dockerfile"):
        for command, *arguments in invocations(code):
            package = tables.COMMANDS[command].replace("-", "_")
            cli = importlib.import_module(f"{package}.{'server_cli' if command == 'hboned' else 'cli'}")
            tool = next(value for value in vars(cli).values() if isinstance(value, click.Command))
            tool.make_parser(click.Context(tool)).parse_args(list(arguments))


@pytest.mark.parametrize("path", DOCUMENTS, ids=name)
def test_every_link_in_a_document_leads_somewhere(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text)
    local = [link for link in links if "://" not in link]
    assert [link for link in local if not (path.parent / link).exists()] == []


EXAMPLES = [(path, number, code) for path in DOCUMENTS for number, code in enumerate(blocks(path, "console"), start=1)]


@pytest.mark.loopback
@pytest.mark.parametrize(
    ("path", "code"), [(p, c) for p, _, c in EXAMPLES], ids=[f"{name(p)}-{n}" for p, n, _ in EXAMPLES]
)
def test_console_example_prints_what_the_document_shows(path: Path, code: str, tmp_path: Path) -> None:
    expected: dict[str, str] = {}
    command = ""
    for line in code.splitlines():
        if line.startswith("$ "):
            command = line[2:]
            expected[command] = ""
        else:
            expected[command] += line + "\n"
    for shown, output in expected.items():
        done = processes.run(["sh", "-c", shown], cwd=tmp_path, stdin=None)
        printed = done.stdout + done.stderr
        # As in a doctest, three dots stand for anything.
        fits = doctest.OutputChecker().check_output(output, printed, doctest.ELLIPSIS)
        assert fits, f"{name(path)}: {shown}\n{printed}"
