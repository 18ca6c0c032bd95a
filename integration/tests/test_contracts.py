"""One table each for variables, ports, exit statuses and log fields: all packages are held to them here."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import click
import pytest

from krun_testbed import tables

PORT_NUMBERS = range(15000, 15500)


def module(package: str) -> str:
    return package.replace("-", "_")


def contract(package: str) -> ModuleType:
    return importlib.import_module(f"{module(package)}.contract")


def sources(package: str) -> Iterator[tuple[Path, ast.Module]]:
    for path in sorted((tables.ROOT / "packages" / package / "src").rglob("*.py")):
        if path.name != "contract.py":
            yield path, ast.parse(path.read_text(encoding="utf-8"))


def literals(package: str, kind: type) -> Iterator[tuple[Path, int, object]]:
    for path, tree in sources(package):
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and type(node.value) is kind:
                yield path, node.lineno, node.value


def listed(name: str) -> str | None:
    """The row that a variable's name stands in: its own, or that of its family."""
    names = tables.variables()
    if name in names:
        return name
    families = [row for row in names if row.endswith("*") and name.startswith(row[:-1])]
    return families[0] if families else None


@pytest.mark.parametrize("package", tables.PACKAGES)
def test_every_declared_variable_stands_in_the_table(package: str) -> None:
    declared = contract(package).READS | contract(package).SETS
    assert {name for name in declared if name not in tables.variables()} == set()


@pytest.mark.parametrize("package", tables.PACKAGES)
def test_the_table_says_who_reads_and_who_sets_what_the_packages_declare(package: str) -> None:
    commands = {command for command, home in tables.COMMANDS.items() if home == package}
    reads = {row.name for row in tables.variables().values() if row.read_by & commands}
    sets = {row.name for row in tables.variables().values() if row.set_by & commands}
    assert set(contract(package).READS) == reads
    assert set(contract(package).SETS) == sets


@pytest.mark.parametrize("package", tables.PACKAGES)
def test_every_variable_in_the_source_is_declared(package: str) -> None:
    declared = contract(package).READS | contract(package).SETS
    strays = []
    for path, line, value in literals(package, str):
        name = str(value)
        if re.fullmatch(r"[A-Za-z_]{3,40}", name) is None:
            continue
        row = listed(name)
        if name.startswith("KRUN_") and row is None:
            strays.append(f"{path.name}:{line} {name} is in no table")
        if row is not None and row not in declared:
            strays.append(f"{path.name}:{line} {name} is not declared in contract.py")
    assert strays == []


@pytest.mark.parametrize("package", tables.PACKAGES)
def test_every_declared_variable_is_in_the_source(package: str) -> None:
    # hgate's flags for its tunnels are hbone's.
    homes = [package, "hbone"] if package == "hgate" else [package]
    texts = {str(value) for home in homes for _, _, value in literals(home, str)}
    declared = contract(package).READS | contract(package).SETS
    used = {name for name in declared for text in texts if re.search(rf"\b{name.removesuffix('*')}", text)}
    assert declared - used == set()


@pytest.mark.parametrize("command", tables.COMMANDS)
def test_every_variable_of_the_command_line_is_declared(command: str) -> None:
    package = tables.COMMANDS[command]
    cli = importlib.import_module(f"{module(package)}.{tables.CLI.get(command, 'cli')}")
    parsed = [value for value in vars(cli).values() if isinstance(value, click.Command)]
    assert parsed, f"{command}: no click command in its cli module"
    for tool in parsed:
        for parameter in tool.params:
            names = [parameter.envvar] if isinstance(parameter.envvar, str) else (parameter.envvar or [])
            for name in names:
                assert listed(name) in contract(package).READS, f"{command} {parameter.name}: {name}"


@pytest.mark.parametrize("package", tables.PACKAGES)
def test_every_port_stands_in_the_table_under_its_name(package: str) -> None:
    table = tables.ports()
    assert {name: table.get(name) for name in contract(package).PORTS} == dict(contract(package).PORTS)


@pytest.mark.parametrize("package", tables.PACKAGES)
def test_every_port_number_in_the_source_is_declared(package: str) -> None:
    # Ports of Istio that hboned refuses to offer are named for that only.
    known = set(contract(package).PORTS.values()) | set(getattr(contract(package), "FOREIGN_PORTS", ()))
    strays = [
        f"{path.name}:{line} {number}"
        for path, line, number in literals(package, int)
        if number in PORT_NUMBERS and number not in known
    ]
    assert strays == []


@pytest.mark.parametrize("package", tables.PACKAGES)
def test_exit_statuses_are_those_of_the_table(package: str) -> None:
    errors = importlib.import_module(f"{module(package)}.errors")
    statuses = {name: value for name, value in vars(errors.Exit).items() if name.isupper()}
    assert statuses == tables.exit_statuses()


@pytest.mark.parametrize("package", tables.PACKAGES)
def test_log_fields_are_declared_and_stand_in_the_table(package: str) -> None:
    used: set[str] = set()
    for _, tree in sources(package):
        for node in ast.walk(tree):
            if isinstance(node, ast.Dict):
                for key, value in zip(node.keys, node.values, strict=True):
                    if isinstance(key, ast.Constant) and key.value == "fields" and isinstance(value, ast.Dict):
                        used |= {str(k.value) for k in value.keys if isinstance(k, ast.Constant)}
            if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("lines."):
                used |= {keyword.arg for keyword in node.keywords if keyword.arg} - {"tool", "level", "style"}
    assert used <= contract(package).LOG_FIELDS
    assert contract(package).LOG_FIELDS - tables.log_fields() == set()


def test_records_are_the_same_bytes_where_a_package_has_them() -> None:
    texts = {path.read_bytes() for path in (tables.ROOT / "packages").glob("*/src/*/record.py")}
    assert len(texts) == 1, "run make sync"


@pytest.mark.parametrize("name", ["errors.py", "log.py"])
def test_shared_files_are_the_same_bytes_in_every_package(name: str) -> None:
    texts = {
        package: (tables.ROOT / "packages" / package / "src" / module(package) / name).read_bytes()
        for package in tables.PACKAGES
    }
    assert len(set(texts.values())) == 1, "run make sync"


def test_every_listed_variable_is_read_or_set_by_somebody() -> None:
    idle = [row.name for row in tables.variables().values() if not row.read_by | row.set_by]
    assert idle == []
