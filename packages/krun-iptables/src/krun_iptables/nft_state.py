"""What of ours ``nft`` lists, and whether it is what was decided, though nft lists rules in other words than it takes.

A listing that is not understood counts as different: then all of ours is replaced, which is always right.
"""

from __future__ import annotations

from krun_iptables import kernel_program, nft
from krun_iptables.errors import Denied
from krun_iptables.kernel_state import standing
from krun_iptables.network import network

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from krun_iptables.nft_waiting import Waiting
    from krun_iptables.rule import Rule

# nft's own numbers (linux/netfilter/nf_conntrack_common.h, NF_CT_STATE_BIT).
STATES = {"invalid": 1, "established": 2, "related": 4}
Chains = dict[tuple[str, str], list[tuple[str, ...]]]


def program() -> str:
    """The path of ``nft``.

    Raises:
        Denied: there is none.
    """
    path = kernel_program.find("nft")
    if not path:
        raise Denied("native nftables need nft, and there is none in PATH", hint="install nftables")
    return path


def put(text: str, *, waiting: Waiting | None = None) -> None:
    """Do what a text says, in one transaction. Raises Denied when it is not permitted, or another Failure.

    ``waiting``: an nft that has started; once it has got a text, another one is started.
    """
    if waiting is not None and waiting.is_there:
        done = waiting.put(text)
        if done.status:
            raise kernel_program.failure("nft", done=done, text=text)
        return
    kernel_program.must([program(), "-f", "-"], text)


def listing(tables: Sequence[str] | None) -> str:
    """What nft says of those tables of ours that are there; None is: nobody knows which are.

    Raises:
        Denied: there are some, but no nft.
    """
    if tables is None:
        path = kernel_program.find("nft")
        done = kernel_program.run([path, "list", "tables"]) if path else None
        lines = done.said.splitlines() if done and not done.status else []
        tables = [table for table in nft.TABLES if f"table {nft.FAMILY} {table}" in lines]
    # One at a time: nft 1.0.6 finds only the last of several.
    asked = [f"list table {nft.FAMILY} {table}" for table in tables]
    return "".join(kernel_program.must([program(), "--stateless", "--numeric", words]) for words in asked)


def is_held(rules: Sequence[Rule], *, listing: str) -> bool:
    """Whether the listing of our tables, by ``nft --stateless --numeric list table``, has exactly these rules."""
    return listed(listing) == decided(rules) if listing else not rules


def decided(rules: Sequence[Rule]) -> Chains:
    """The rules by table and chain, in the order in which they come to stand."""
    merged = nft.once(rules)
    found: Chains = {}
    for table in nft.CHAINS:
        mine = [rule for rule in merged if rule.table == table]
        for name in dict.fromkeys(chain for rule in mine for chain in (rule.chain, rule.target.chain) if chain):
            hook = nft.hook(table, nft.chain_name(name))
            found[nft.table_name(table), nft.chain_name(name)] = [
                *([_plain((*hook, "policy", "accept"))] if hook else []),
                *(_plain(nft.words(rule)) for rule in standing(_clamped(mine, chain=name), chain=name)),
            ]
    return found


def _clamped(rules: Sequence[Rule], *, chain: str) -> list[Rule]:
    """The rules of a chain, where an insert behind the last one is an append, as nft has it."""
    found: list[Rule] = []
    for rule in rules:
        if rule.chain == chain:
            found.append(rule if rule.position <= len(found) else rule.but(position=0))
    return found


def listed(listing: str) -> Chains:
    """The chains that a listing names, with their rules."""
    found: Chains = {}
    table = chain = ""
    for line in listing.splitlines():
        words = line.split()
        match words:
            case ["table", nft.FAMILY, name, "{"]:
                table = name
            case ["chain", name, "{"]:
                chain = name
                found[table, chain] = []
            case ["}"] | []:
                pass
            case ["type", *_]:  # a chain that the kernel calls: where, and what it does in the end
                found.setdefault((table, chain), []).append(_plain(line.replace(";", " ").split()))
            case _:
                found.setdefault((table, chain), []).append(_plain(words))
    return found


def _plain(words: Iterable[str]) -> tuple[str, ...]:
    """A rule in a form that both ways to write it have in common."""
    parts = [part.strip('",') for word in words for part in word.split(", ")]
    if "{" in parts and "}" in parts:
        start, end = parts.index("{"), parts.index("}")
        parts = [*parts[:start], *sorted(parts[start + 1 : end]), *parts[end + 1 :]]
    # A port says its protocol.
    if "l4proto" in parts and ("dport" in parts or "sport" in parts):
        del parts[parts.index("l4proto") : parts.index("l4proto") + 2]
    return tuple(_value(part) for part in parts if part != "meta")


def _value(word: str) -> str:
    """Numbers as decimals, states as numbers, addresses as networks; other words as they are."""
    if word == "tcp":
        return "6"
    try:
        return ",".join(map(str, sorted(STATES.get(part) or int(part, 0) for part in word.split(","))))
    except ValueError:
        pass
    try:
        return (
            str(network(word if "/" in word else f"{word}/{32 if '.' in word else 128}"))
            if "." in word or ":" in word
            else word
        )
    except ValueError:
        return word
