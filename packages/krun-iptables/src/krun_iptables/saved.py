"""Tells whether a saved rule is the one that was decided, though ``iptables-save`` writes it in other words."""

from __future__ import annotations

from krun_iptables.words import COMMENT, is_loose, rule_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from krun_iptables.rule import Rule

# What iptables-save adds or writes otherwise.
SAME = {"--to-port": "--to-ports", "--set-xmark": "--set-mark"}
MASKS = {"--nfmask", "--ctmask"}
# Every address, said or not.
NOTHING = {
    *(("--on-ip", address) for address in ("0.0.0.0", "::")),
    *((option, network) for option in ("-d", "-s") for network in ("0.0.0.0/0", "::/0")),
}
EVERY_BIT = 0xFFFFFFFF


def is_text_of(line: str, rule: Rule) -> bool:
    """Compare a line of iptables-save, without its ``-A``, with a rule: any order of options is the same."""
    has_mark = COMMENT in line
    wanted = rule_text(rule.but(position=0)).removeprefix("-A ")
    return has_mark == is_loose(rule) and _options(line.replace(COMMENT, "", 1)) == _options(wanted)


def _options(text: str) -> list[tuple[str, ...]]:
    """The options with their values, in a form that all ways to write them have in common."""
    chain, *words = text.split()
    found: list[tuple[str, ...]] = [("chain", chain)]
    option: list[str] = []
    for word in [*words, "-"]:
        if word == "!" or (word.startswith("-") and option != ["!"]):
            found += _usual(option)
            option = [word]
        else:
            option.append(word)
    return sorted(found)


def _usual(option: list[str]) -> Iterator[tuple[str, ...]]:
    negated = option[:1] == ["!"]
    name, *values = option[1:] if negated else option or [""]
    # Which modules are loaded follows from their options; masks of every bit are what is meant without them.
    if name in ("", "-m") or name in MASKS or (name, *values) in NOTHING:
        return
    yield ("!" * negated, SAME.get(name, name), *map(_value, values))


def _value(text: str) -> str:
    number, _, mask = text.partition("/")
    if mask and _number(mask) == EVERY_BIT:
        text = number
    if "," in text:
        return ",".join(sorted(text.split(",")))
    found = _number(text)
    return text if found is None else str(found)


def _number(text: str) -> int | None:
    is_hex = text.startswith("0x")
    try:
        return int(text, 16 if is_hex else 10)
    except ValueError:
        return None
