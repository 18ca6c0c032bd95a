"""The first half of --explain: where each value came from, what lost to it, what was tried. Pure."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Sequence

from krun_discover.found import NO_ANSWER, NO_CLUSTER, NOT_SOUGHT
from krun_discover.resolve import Resolved

WIDTH = 80
# What is said of a place that just does not have it.
SILENT = ("not set", "not in it", NOT_SOUGHT, NO_CLUSTER, NO_ANSWER)
LEGEND = "> gives the value   - was tried before it   x would have given another, and lost\n"


def values(found: Sequence[Resolved], *, dropped: Sequence[str] = (), mesh: str = "", remark: str = "") -> str:
    """For each variable its value, where it came from, what lost and what was tried, in order."""
    blocks = [LEGEND]
    blocks += [_block(item) for item in found if item.value or _tried(item)]
    silent = [item.name for item in found if not item.value and not _tried(item)]
    if silent:
        blocks.append(_wrap("Set nowhere, and nothing else tells them:", silent))
    if dropped:
        blocks.append(_wrap(f"Dropped, as {mesh} may not set them:", [_shown(name) for name in dropped]))
    if remark:
        blocks.append(_noted("Metadata server", remark) + "\n")
    return "\n".join(blocks)


def _tried(item: Resolved) -> bool:
    """Tell whether anything was tried beyond looking whether somebody has set it."""
    return any(attempt.note not in SILENT for attempt in item.tried)


def _block(item: Resolved) -> str:
    lines = [f"{item.name}={_shown(item.value)}" if item.value else f"{item.name} has no value"]
    for attempt in item.tried:
        mark = ">" if attempt.value else "-"
        lines.append(_noted(f"  {mark} {attempt.source}", attempt.note))
    lines += [f"  x {attempt.source}: {_shown(attempt.value)}" for attempt in item.lost]
    return "\n".join(lines) + "\n"


def _shown(value: str) -> str:
    """The value on one line: quoted when it would break out of it."""
    return value if value.isprintable() else json.dumps(value)


def _noted(head: str, note: str) -> str:
    """``HEAD: NOTE``, the note below it where both are wider than the terminal; a path in the head stays whole."""
    line = f"{head}: {note}" if note else head
    if len(line) <= WIDTH or not note:
        return line
    indent = " " * 6
    return f"{head}:\n" + textwrap.fill(note, WIDTH, initial_indent=indent, subsequent_indent=indent)


def _wrap(head: str, words: Sequence[str]) -> str:
    indent = "  "
    body = textwrap.fill(
        " ".join(words), WIDTH, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False
    )
    return f"{head}\n{body}\n"
