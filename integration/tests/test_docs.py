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
    for pattern in ("*.md", "docs/**/*.md", "packages/*/README.md", "samples/**/*.md", "images/**/*.md")
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
            tool = tool_of(command)
            tool.make_parser(click.Context(tool)).parse_args(list(arguments))


@pytest.mark.parametrize("path", DOCUMENTS, ids=name)
def test_every_link_in_a_document_leads_somewhere(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text)
    local = [link for link in links if "://" not in link]
    assert [link for link in local if not (path.parent / link).exists()] == []


def tool_of(command: str) -> click.Command:
    """The click command itself."""
    package = tables.COMMANDS[command].replace("-", "_")
    cli = importlib.import_module(f"{package}.{tables.CLI.get(command, 'cli')}")
    return next(value for value in vars(cli).values() if isinstance(value, click.Command))


def man_page(package: str) -> str:
    return (tables.ROOT / "packages" / package / "README.md").read_text(encoding="utf-8")


def names_word(text: str, word: str) -> bool:
    """Whether the text holds the word as a whole: --port is not in --ports, nor PORT in PORT_http."""
    return re.search(rf"(?<![\w-]){re.escape(word)}(?![\w-])", text) is not None


@pytest.mark.parametrize("command", tables.COMMANDS)
def test_every_option_of_a_command_stands_in_its_man_page(command: str) -> None:
    page = man_page(tables.COMMANDS[command])
    missing = []
    for parameter in tool_of(command).params:
        # --help and --version are every command's, and CONTRIBUTING says so once for all.
        if not isinstance(parameter, click.Option) or parameter.name in ("help", "version"):
            continue
        variable = [parameter.envvar] if isinstance(parameter.envvar, str) else []
        if not any(names_word(page, word) for word in [*parameter.opts, *variable]):
            missing.append(parameter.opts[-1])
    assert missing == []


@pytest.mark.parametrize("package", tables.PACKAGES)
def test_every_variable_that_a_package_reads_stands_in_its_man_page(package: str) -> None:
    everybodys = {row.name for row in tables.variables().values() if row.read_by == frozenset(tables.COMMANDS)}
    # Where logs go is decided alike everywhere, so docs/environment.md says it once; the two switches stand everywhere.
    wanted = {row.name for row in tables.variables().values() if row.read_by & commands_of(package)}
    wanted -= everybodys - {"KRUN_LOG_LEVEL", "KRUN_LOG_FORMAT"}
    page = man_page(package)
    assert sorted(variable for variable in wanted if not names_word(page, variable)) == []


def commands_of(package: str) -> set[str]:
    return {command for command, home in tables.COMMANDS.items() if home == package}


@pytest.mark.parametrize("package", tables.PACKAGES)
def test_a_man_page_has_the_sections_of_one_in_order(package: str) -> None:
    found = re.findall(r"^## ([A-Z ]+)$", man_page(package), re.M)
    wanted = ["NAME", "SYNOPSIS", "EXIT STATUS", "ENVIRONMENT", "EXAMPLE", "NOT DONE HERE"]
    assert [section for section in found if section in wanted] == wanted


def test_every_module_stands_in_the_table_of_rooms() -> None:
    everywhere = {"__init__", "cli", "contract", "errors", "log"}
    text = (tables.ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| (\S+) \| (`.*) \|$", text, re.M))
    for package in tables.PACKAGES:
        modules = {path.stem for path in (tables.ROOT / "packages" / package / "src").rglob("*.py")} - everywhere
        named = re.findall(r"`(\w+)`(?= )", rows[package].replace("`MESH`", "MESH"))
        assert (modules - set(named), set(named) - modules) == (set(), set()), package
        assert named == sorted(named), package
    testbed = {path.stem for path in (tables.ROOT / "integration" / "src").rglob("*.py")} - {"__init__"}
    listed = re.findall(r"^\| `(\w+)` \|", (tables.ROOT / "docs" / "testing.md").read_text(encoding="utf-8"), re.M)
    # Both differences by name: what is not in the table, and what is no module any more.
    assert (testbed - set(listed), set(listed) - testbed) == (set(), set())


@pytest.mark.loopback
@pytest.mark.parametrize("command", tables.COMMANDS)
def test_help_fits_80_columns_and_its_examples_are_understood(command: str) -> None:
    done = processes.run([command, "--help"], env=processes.environment(COLUMNS="80"))
    assert [line for line in done.stdout.splitlines() if len(line) > 80] == []
    examples = re.split(r"^ *Examples:$", done.stdout, flags=re.M)[1]
    joined = re.sub(r"\\\n\s*", "", examples)
    shown = [part for line in joined.splitlines() for part in invocations(re.split(r"\s{3,}", line.strip())[0])]
    assert command in {name for name, *_ in shown} | set(examples.split())
    for name, *arguments in shown:
        tool = tool_of(name)
        tool.make_parser(click.Context(tool)).parse_args(list(arguments))


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
