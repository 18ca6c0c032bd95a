"""The list of docs/istio.md: what krun does otherwise than Istio, each with its reason, and what is not on it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from krun_testbed import tables

LIST = tables.ROOT / "docs" / "istio.md"
ARGUMENTS = "Arguments"
VARIABLES = "Variables"
LABELS = "Labels and annotations"
FILES = "Files"
RULES = "Rules"
CONTAINER = "Container"
MACHINE = "Settings of a VM"
UNIT = "Unit of a VM"
KINDS = (ARGUMENTS, VARIABLES, LABELS, FILES, RULES, CONTAINER, MACHINE, UNIT)


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Something that is not the same. What krun has instead is in words of people where ``krun`` is empty."""

    kind: str
    name: str
    istio: str
    krun: str = ""

    def __str__(self) -> str:
        return f"{self.kind}: {self.name}: Istio: {self.istio}" + (f"; krun: {self.krun}" if self.krun else "")


@dataclass(frozen=True, kw_only=True)
class Decision:
    """A row of the list, for one of its names."""

    kind: str
    name: str
    istio: str
    krun: str
    why: str


def decisions(path: Path = LIST) -> tuple[Decision, ...]:
    """The list: tables of four columns below the headings of KINDS; a row may have several names, by comma."""
    found = []
    kind = ""
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            kind = line.removeprefix("## ")
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if kind in KINDS and len(cells) == 4 and cells[0] != "name" and not set(cells[0]) <= set("-: "):
            first = Decision(kind=kind, name="", istio=_plain(cells[1]), krun=_plain(cells[2]), why=cells[3])
            found += [replace(first, name=_plain(name)) for name in cells[0].split(",")]
    return tuple(found)


def _plain(cell: str) -> str:
    return cell.strip().replace("`", "").replace("\\|", "|")


def undecided(found: Sequence[Difference], listed: Sequence[Decision]) -> tuple[str, ...]:
    """What somebody has to decide, in words: what is on no row, and what is not as its row says."""
    rows = {(row.kind, row.name): row for row in listed}
    said = []
    for one in found:
        row = rows.get((one.kind, one.name))
        if row is None:
            said.append(f"{one}: not on the list: decide, and add a row to docs/istio.md, ## {one.kind}")
        elif row.istio != one.istio or (one.krun and row.krun != one.krun):
            said.append(f"{one}: docs/istio.md says: Istio: {row.istio}; krun: {row.krun}: decide anew, and change it")
        elif not (row.krun and row.why):
            said.append(f"{one}: docs/istio.md, ## {one.kind}: its row has no reason")
    return tuple(said)


def stale(found: Iterable[Difference], listed: Sequence[Decision]) -> tuple[str, ...]:
    """Rows that are no difference any more, and rows that say the same thing twice."""
    known = {(one.kind, one.name) for one in found}
    names = [(row.kind, row.name) for row in listed]
    gone = [
        f"{kind}: {name}: no difference any more: take the row out" for kind, name in names if (kind, name) not in known
    ]
    twice = sorted({f"{kind}: {name}: stands there twice" for kind, name in names if names.count((kind, name)) > 1})
    return (*gone, *twice)
