"""Rules to the text that ``iptables-restore --noflush`` takes, and back: what of ours a kernel holds.

Ours is found by the names of our chains, and by nothing else: whoever removes needs no memory of what was applied.
"""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from krun_iptables.rules import CHAINS, TABLE, Rule, chains


@dataclass(frozen=True, kw_only=True)
class State:
    """What of ours is in the kernel: our chains, and the rules elsewhere that lead into them, as they were saved."""

    chains: tuple[str, ...] = ()
    jumps: tuple[str, ...] = ()


NOTHING = State()


def state(saved: str) -> State:
    """Find what is ours in the text of ``iptables-save``; other tables than nat are passed over."""
    found: list[str] = []
    jumps: list[str] = []
    table = ""
    for line in saved.splitlines():
        if line.startswith("*"):
            table = line[1:].strip()
        elif table == TABLE and line.startswith(":"):
            name = line[1:].split(" ", 1)[0]
            found += [name] if name in CHAINS else []
        elif table == TABLE and line.startswith("-A ") and _is_jump(line):
            jumps.append(line[len("-A ") :])
    return State(chains=tuple(found), jumps=tuple(jumps))


def _is_jump(line: str) -> bool:
    try:
        words = shlex.split(line)
    except ValueError:
        # A comment with a lone quote, which shells read otherwise than iptables.
        words = line.split()
    leads = any(a in ("-j", "-g") and b in CHAINS for a, b in itertools.pairwise(words))
    return leads and words[1] not in CHAINS


def apply(decided: Sequence[Rule], *, present: State = NOTHING) -> str:
    """The transaction that leaves exactly these rules of ours, whatever was there; reasons are comments.

    A jump that is right already stays in its place among other people's rules; naming a chain empties it.
    """
    wanted = chains(decided)
    left = [rule.text for rule in decided if rule.chain not in CHAINS]
    lines = [f"*{TABLE}"]
    for jump in present.jumps:
        if jump in left:
            left.remove(jump)
        else:
            lines.append(f"-D {jump}")
    lines += [f":{chain} - [0:0]" for chain in wanted]
    for rule in decided:
        if rule.chain in CHAINS or rule.text in left:
            lines += [f"# {rule.reason}", f"-A {rule.text}"]
    return _ended(lines + _deleted([chain for chain in present.chains if chain not in wanted]))


def remove(present: State) -> str:
    """The transaction that takes away all of ours; empty when there is nothing."""
    if present == NOTHING:
        return ""
    return _ended([f"*{TABLE}", *(f"-D {jump}" for jump in present.jumps), *_deleted(present.chains)])


def _deleted(names: Sequence[str]) -> list[str]:
    # All are emptied first: a chain that another one leads to cannot go.
    return [f"-F {name}" for name in names] + [f"-X {name}" for name in names]


def _ended(lines: list[str]) -> str:
    return "\n".join([*lines, "COMMIT", ""])
