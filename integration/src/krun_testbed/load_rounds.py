"""Rounds of load: each metric for all systems in turn; tables with ratios, and rows with a target.

A machine's speed moves by minutes, so only ratios of one round are compared: a row is the median of the rounds' ratios.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import click

from krun_testbed.load_generator import Failed
from krun_testbed.load_systems import ONCE, Values

Measure = Callable[[str, str], Values]  # system, metric


@dataclass(frozen=True, kw_only=True)
class Row:
    """A promise: ours against a peer, or by itself when there is none."""

    what: str
    metric: str
    value: str
    ours: str
    peer: str = ""
    most: float | None = None  # target: at most
    least: float | None = None  # or at least


@dataclass(kw_only=True)
class Taken:
    """What was measured: by metric and system, a value for each round; None where it failed."""

    rounds: dict[tuple[str, str], list[Values | None]]
    said: dict[tuple[str, str], str]  # the last failure's words

    def values(self, metric: str, system: str, value: str) -> list[float]:
        return [found[value] for found in self.rounds.get((metric, system), []) if found and value in found]

    def ratio(self, metric: str, value: str, *, ours: str, peer: str) -> float | None:
        """The median of the rounds' ratios; None when there is no round with both."""
        mine, theirs = (self.rounds.get((metric, name), []) for name in (ours, peer))
        ratios = [
            a[value] / b[value]
            for a, b in zip(mine, theirs, strict=False)
            if a and b and value in a and b.get(value, 0) > 0
        ]
        return statistics.median(ratios) if ratios else None


def take(metrics: Sequence[str], systems: Sequence[str], measure: Measure, *, count: int) -> Taken:
    """Measure every metric, ``count`` times, all systems in turn."""
    taken = Taken(rounds={}, said={})
    steps = [
        (metric, system) for metric in metrics for _ in range(1 if metric in ONCE else count) for system in systems
    ]
    with click.progressbar(steps, label="load", file=sys.stderr, item_show_func=_shown) as bar:
        for metric, system in bar:
            found: Values | None = None
            try:
                found = measure(system, metric)
            except Failed as error:
                taken.said[metric, system] = str(error)
            taken.rounds.setdefault((metric, system), []).append(found)
    return taken


def _shown(step: tuple[str, str] | None) -> str:
    return " ".join(step) if step else ""


def table(taken: Taken, *, peers: Sequence[str]) -> str:
    """For each metric: medians, and ratios to the peers."""
    lines: list[str] = []
    for metric in dict.fromkeys(metric for metric, _ in taken.rounds):
        systems = [system for of, system in taken.rounds if of == metric]
        names = _names(taken.rounds[metric, system] for system in systems)
        known = [peer for peer in peers if peer in systems]
        heads = [*names, *(f"{name} / {peer}" for peer in known for name in names)]
        widths = [max(9, len(head)) for head in heads]
        lines += [
            "",
            f"{metric:<24}" + "".join(f"{head:>{width + 2}}" for head, width in zip(heads, widths, strict=True)),
        ]
        for system in systems:
            cells = [_cell(taken.values(metric, system, name)) for name in names]
            cells += [_ratio(taken.ratio(metric, name, ours=system, peer=peer)) for peer in known for name in names]
            line = f"{system:<24}" + "".join(f"{cell:>{width + 2}}" for cell, width in zip(cells, widths, strict=True))
            said = taken.said.get((metric, system))
            lines.append(line + (f"  {said}" if said else ""))
    return "\n".join(lines[1:])


def _names(rounds: Iterable[list[Values | None]]) -> list[str]:
    unwanted = {"count", "done", "failed", "max"}
    return list(dict.fromkeys(name for of in rounds for found in of if found for name in found if name not in unwanted))


def _cell(values: list[float]) -> str:
    return f"{statistics.median(values):.4g}" if values else "-"


def _ratio(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def verdicts(rows: Sequence[Row], taken: Taken) -> str:
    """Each row with its target, its value, and whether it is met; rows of what was not measured are left out."""
    lines = [f"{'':<66} {'target':>9} {'value':>8}"]
    for row in rows:
        if row.peer:
            value = taken.ratio(row.metric, row.value, ours=row.ours, peer=row.peer)
        else:
            values = taken.values(row.metric, row.ours, row.value)
            value = statistics.median(values) if values else None
        if value is None:
            continue
        is_met = (row.most is None or value <= row.most) and (row.least is None or value >= row.least)
        target = f"<= {row.most:g}" if row.most is not None else f">= {row.least:g}"
        lines.append(f"{row.what:<66} {target:>9} {value:>8.2f}  {'pass' if is_met else 'short'}")
    return "\n".join(lines)
