"""Rules to the text that ``iptables-restore --noflush`` takes, and back: what of ours a kernel holds.

Ours is found by the names of our chains, and by our comment where a rule leads into none of them: whoever removes needs
no memory of what was applied.
"""

from __future__ import annotations

import itertools

from krun_iptables.record import Record
from krun_iptables.rule import BUILT_IN, CHAINS
from krun_iptables.words import COMMENT, MARK, marked_text, rule_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from krun_iptables.rule import Family, Rule

# In the order in which Istio's tool writes them.
TABLES = ("filter", "mangle", "nat", "raw")
__all__ = ["COMMENT", "MARK", "NOTHING", "TABLES", "Held", "State", "apply", "chains", "listing", "remove", "state"]


class Held(Record):
    """What of ours one table holds: rules are as they were saved, without their ``-A``."""

    chains: tuple[str, ...] = ()
    inside: tuple[str, ...] = ()  # rules of our chains
    outside: tuple[str, ...] = ()  # rules in others' chains


EMPTY = Held()


class State(Record):
    """What of ours is in the kernel for one family, by table; a table that has nothing of ours is not named."""

    tables: tuple[tuple[str, Held], ...] = ()

    def table(self, name: str) -> Held:
        """What is in one table."""
        return dict(self.tables).get(name, EMPTY)


NOTHING = State()


def listing(decided: Sequence[Rule], *, family: Family) -> tuple[tuple[str, str], ...]:
    """Table and Istio's words of each rule of a family, in order of making."""
    return tuple((rule.table, rule_text(rule)) for rule in decided if rule.family == family)


def chains(decided: Sequence[Rule], *, table: str) -> tuple[str, ...]:
    """Those of our chains that the rules need in a table: first those that hold rules, in order of first use."""
    mine = [rule for rule in decided if rule.table == table]
    named = [*(rule.chain for rule in mine), *(rule.target.chain for rule in mine)]
    return tuple(dict.fromkeys(name for name in named if name in CHAINS))


def state(saved: str) -> State:
    """Find what is ours in the text of ``iptables-save``, in every table."""
    found: dict[str, dict[str, list[str]]] = {}
    table = ""
    for line in saved.splitlines():
        if line.startswith("*"):
            table = line[1:].strip()
        elif table not in TABLES:
            continue
        elif line.startswith(":"):
            name = line[1:].split(" ", 1)[0]
            if name in CHAINS:
                found.setdefault(table, {}).setdefault("chains", []).append(name)
        elif line.startswith("-A "):
            where = _whose(line)
            if where:
                found.setdefault(table, {}).setdefault(where, []).append(line[len("-A ") :])
    held = (
        (name, Held(**{key: tuple(lines) for key, lines in found[name].items()})) for name in TABLES if name in found
    )
    return State(tables=tuple(held))


def _whose(line: str) -> str:
    if not any(name in line for name in (MARK, *CHAINS)):
        return ""
    words = _words(line)
    chain = words[1]
    if chain in CHAINS:
        return "inside"
    pairs = list(itertools.pairwise(words))
    leads = any(first in ("-j", "-g") and second in CHAINS for first, second in pairs)
    return "outside" if leads or (chain in BUILT_IN and ("--comment", MARK) in pairs) else ""


def _words(line: str) -> list[str]:
    """The words of a saved rule; iptables quotes a comment with double quotes, and puts ``\\`` before one in it."""
    words: list[str] = []
    word, is_quoted, is_escaped = "", False, False
    for sign in line:
        if is_escaped:
            word, is_escaped = word + sign, False
        elif is_quoted and sign == "\\":
            is_escaped = True
        elif sign == '"':
            is_quoted = not is_quoted
        elif sign == " " and not is_quoted:
            words.append(word)
            word = ""
        else:
            word += sign
    return [*words, word]


def apply(decided: Sequence[Rule], *, present: State = NOTHING) -> str:
    """The text that leaves exactly these rules of ours, of one family, whatever was there; reasons are comments.

    One transaction a table. Rules of ours among other people's stay where they are, when they are right already; naming
    a chain empties it.
    """
    return "".join(_table(decided, table=table, held=present.table(table)) for table in TABLES)


def remove(present: State) -> str:
    """The text that takes away all of ours; empty when there is nothing."""
    return apply((), present=present)


def _table(decided: Sequence[Rule], *, table: str, held: Held) -> str:
    mine = [rule for rule in decided if rule.table == table]
    wanted = chains(mine, table=table)
    gone: list[str] = []
    kept: set[str] = set()
    for chain in dict.fromkeys([*BUILT_IN, *(_chain(line) for line in held.outside)]):
        there = [line for line in held.outside if _chain(line) == chain]
        extra = _extra(there, wanted=_standing(mine, chain=chain))
        gone += there if extra is None else extra
        if extra is not None:
            kept.add(chain)
    lines = [f"-D {line}" for line in gone]
    lines += [f":{chain} - [0:0]" for chain in wanted]
    for rule in mine:
        if rule.chain not in kept:
            lines += [f"# {rule.reason}", marked_text(rule)]
    left = [chain for chain in held.chains if chain not in wanted]
    # All are emptied first: a chain that another one leads to cannot go.
    lines += [f"-F {chain}" for chain in left] + [f"-X {chain}" for chain in left]
    return "\n".join([f"*{table}", *lines, "COMMIT", ""]) if lines else ""


def _chain(line: str) -> str:
    return line.split(" ", 1)[0]


def _standing(mine: Sequence[Rule], *, chain: str) -> list[Rule]:
    """The rules of a chain in the order in which they come to stand: one that is inserted goes before others."""
    found: list[Rule] = []
    for rule in mine:
        if rule.chain == chain:
            found.insert(rule.position - 1 if rule.position else len(found), rule)
    return found


def _extra(there: list[str], *, wanted: Sequence[Rule]) -> list[str] | None:
    """What is to be deleted so that these alone are left, in their order; None when that cannot be had by deleting."""
    from krun_iptables.saved import is_text_of

    left = list(wanted)
    extra: list[str] = []
    for line in there:
        if left and is_text_of(line, left[0]):
            left.pop(0)
        else:
            extra.append(line)
    rest = list(there)
    for line in extra:
        rest.remove(line)  # the first, as iptables does
    is_same = len(rest) == len(wanted) and all(map(is_text_of, rest, wanted))
    return extra if not left and is_same else None
