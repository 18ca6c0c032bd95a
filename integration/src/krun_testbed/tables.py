"""The contract tables of docs/ as data: variables, ports, exit statuses, log fields."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[3]

# Which distribution's folder holds a command.
COMMANDS = {
    "krun-discover": "krun-discover",
    "krun-token": "krun-discover",
    "krun-secret": "krun-discover",
    "krun-iptables": "krun-iptables",
    "krun-launch": "krun-launch",
    "hbone": "hbone",
    "hboned": "hbone",
    "hgate": "hgate",
    "krun-sshd": "krun-sshd",
}
# Modules of the click commands that are not in `cli`: a package's second command, and one whose start is without click.
CLI = {
    "hbone": "command",
    "hboned": "server_cli",
    "krun-discover": "command",
    "krun-iptables": "command",
    "krun-launch": "command",
    "krun-secret": "secret_cli",
    "krun-token": "token_command",
}
# Shell scripts among the commands: they keep their own promises, and have no command line of click's.
SCRIPTS = {"krun": "krun-launch"}
PACKAGES = tuple(dict.fromkeys(COMMANDS.values()))


@dataclass(frozen=True, kw_only=True)
class Variable:
    """A row of docs/environment.md; ``set_by`` and ``read_by`` hold commands of ours only."""

    name: str
    set_by: frozenset[str]
    read_by: frozenset[str]


def variables() -> dict[str, Variable]:
    """Every variable of docs/environment.md by name."""
    found = {}
    for cells in _rows(ROOT / "docs" / "environment.md", columns=5):
        name = cells[0].strip("`")
        found[name] = Variable(name=name, set_by=_commands(cells[3]), read_by=_commands(cells[4]))
    return found


def exit_statuses() -> dict[str, int]:
    """Name and number of every exit status of docs/process.md."""
    rows = _rows(ROOT / "docs" / "process.md", columns=3)
    return {cells[1].strip("`"): int(cells[0]) for cells in rows if cells[0].isdecimal()}


def ports() -> dict[str, int]:
    """Name and number of every port of docs/process.md."""
    rows = _rows(ROOT / "docs" / "process.md", columns=4)
    return {cells[1].strip("`"): int(cells[0]) for cells in rows if cells[0].isdecimal()}


def log_fields() -> frozenset[str]:
    """Every field that a log line may have."""
    return frozenset(cells[0].strip("`") for cells in _rows(ROOT / "docs" / "process.md", columns=2))


def _commands(cell: str) -> frozenset[str]:
    words = {word.strip() for word in cell.split(",")}
    return frozenset(COMMANDS) if "all" in words else frozenset(words & {*COMMANDS, *SCRIPTS})


def _rows(path: Path, *, columns: int) -> list[list[str]]:
    """The body rows of the tables that have so many columns."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if (
            len(cells) == columns
            and not set(cells[0]) <= set("-: ")
            and cells[0] not in ("name", "port", "status", "field")
        ):
            rows.append(cells)
    return rows
