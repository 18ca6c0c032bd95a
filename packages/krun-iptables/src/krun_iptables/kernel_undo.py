"""The way back: from what ``iptables-save`` says now to what of ours it said before, in the same places."""

from __future__ import annotations

from krun_iptables import guard, restore


def text(before: str, *, now: str) -> str:
    """The text that brings ours back as it was; others' rules must be the same in both."""
    was, there = restore.state(before), restore.state(now)
    tables = "".join(_table(before, was.table(name), there.table(name), name=name) for name in restore.TABLES)
    return tables + guard.down(now)


def _table(before: str, was: restore.Held, there: restore.Held, *, name: str) -> str:
    if was == there:
        return ""
    lines = [f"-D {line}" for line in there.outside]
    lines += [f":{chain} - [0:0]" for chain in dict.fromkeys([*was.chains, *there.chains])]  # made, or emptied
    lines += [f"-A {line}" for line in was.inside]
    lines += [f"-I {chain} {place} {rule}" for chain, place, rule in _places(before, was.outside, table=name)]
    lines += [f"-X {chain}" for chain in there.chains if chain not in was.chains]
    return "\n".join([f"*{name}", *lines, "COMMIT", ""])


def _places(saved: str, rules: tuple[str, ...], *, table: str) -> list[tuple[str, int, str]]:
    """Where these rules stand: chain, place from 1, and the rest of the rule; the first places come first."""
    found: list[tuple[str, int, str]] = []
    counts: dict[str, int] = {}
    left = list(rules)
    current = ""
    for line in saved.splitlines():
        if line.startswith("*"):
            current = line[1:].strip()
        elif current == table and line.startswith("-A "):
            chain, _, rule = line[3:].partition(" ")
            counts[chain] = counts.get(chain, 0) + 1
            if line[3:] in left:
                left.remove(line[3:])
                found.append((chain, counts[chain], rule))
    return found
