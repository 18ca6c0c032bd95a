"""What the kernel holds, asked without a program where that is possible: most starts find nothing, and are quick."""

from __future__ import annotations

import _socket as socket  # without selectors and enum, which take longer to load than all of this to run

from krun_iptables import kernel_netlink as netlink
from krun_iptables import nft
from krun_iptables.kernel_program import NFT
from krun_iptables.record import Record
from krun_iptables.rule import CHAINS, GUARD

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from krun_iptables.backend import Backend
    from krun_iptables.restore import State
    from krun_iptables.rule import Family, Match, Rule

GET_CHAIN = 10 << 8 | 4  # NFNL_SUBSYS_NFTABLES, NFT_MSG_GETCHAIN
CHAIN_TABLE, CHAIN_NAME = 1, 3
INET = 1  # NFPROTO_INET; those of IPv4 and IPv6 are as sockets call them
FAMILIES: dict[int, Family] = {socket.AF_INET: 4, socket.AF_INET6: 6}
LEGACY_TABLES: dict[Family, str] = {4: "/proc/net/ip_tables_names", 6: "/proc/net/ip6_tables_names"}


class Seen(Record):
    """Where something of ours may be: None is not known."""

    nft: frozenset[Family] | None  # the families for which the nft kind of iptables holds chains of ours
    native: tuple[str, ...] | None  # our tables of family inet
    legacy: frozenset[Family]  # the families whose legacy tables are in use, by whomever

    def may_hold(self, backend: Backend) -> bool:
        """Whether something of ours may be there; when not, there is nothing."""
        in_nft = self.nft is None or backend.family in self.nft
        in_legacy = backend.family in self.legacy
        return in_nft if backend.kind == NFT else in_legacy

    @property
    def may_hold_any(self) -> bool:
        """Whether something of ours may be there in iptables of whatever kind."""
        return self.nft is None or bool(self.nft or self.legacy)

    def is_legacy_used(self, family: Family) -> bool:
        """Whether the legacy kind comes first: its tables are in use, and ours does not stand in the nft kind."""
        return family in self.legacy and not (self.nft and family in self.nft)


def seen() -> Seen:
    """Ask the kernel."""
    legacy = frozenset(family for family, path in LEGACY_TABLES.items() if _has_lines(path))
    try:
        answers = netlink.ask(netlink.NETFILTER, GET_CHAIN, bytes(4))
    except OSError:
        return Seen(nft=None, native=None, legacy=legacy)
    families: set[Family] = set()
    tables: set[str] = set()
    for answer in answers:
        attributes = netlink.unpack(answer[4:])
        table, chain = (_text(attributes.get(key, b"")) for key in (CHAIN_TABLE, CHAIN_NAME))
        if answer[0] in FAMILIES and chain in (*CHAINS, GUARD):
            families.add(FAMILIES[answer[0]])
        if answer[0] == INET and table in nft.TABLES:
            tables.add(table)
    return Seen(nft=frozenset(families), native=tuple(sorted(tables)), legacy=legacy)


def _text(name: bytes) -> str:
    """Names of others may be any bytes."""
    return name.rstrip(b"\0").decode(errors="surrogateescape")


def _has_lines(path: str) -> bool:
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - pathlib is slow to import
            return bool(file.read(1))
    except FileNotFoundError:
        return False
    except OSError:
        return True  # not ours to read: the programs will tell


def standing(rules: Sequence[Rule], *, chain: str) -> list[Rule]:
    """The rules of a chain in the order in which they come to stand: one that is inserted goes before others."""
    found: list[Rule] = []
    for rule in rules:
        if rule.chain == chain:
            found.insert(rule.position - 1 if rule.position else len(found), rule)
    return found


def numbered(rules: Sequence[Rule]) -> tuple[Rule, ...]:
    """The rules with users and groups by number, as the kernel has them."""
    return tuple(rule.but(match=_numbered(rule.match)) if _has_names(rule.match) else rule for rule in rules)


def _has_names(match: Match) -> bool:
    return not all(word.isdecimal() for word in (match.uid, match.not_uid, match.gid, *match.not_gids) if word)


def _numbered(match: Match) -> Match:
    from krun_iptables import owners

    def number(word: str, find: Callable[[str], int | None]) -> str:
        found = None if word.isdecimal() or not word else find(word)
        return word if found is None else str(found)

    return match.but(
        uid=number(match.uid, owners.uid),
        not_uid=number(match.not_uid, owners.uid),
        gid=number(match.gid, owners.gid),
        not_gids=tuple(number(gid, owners.gid) for gid in match.not_gids),
    )


def is_held(rules: Sequence[Rule], *, state: State) -> bool:
    """Whether what is there of ours, for one family, is exactly this, in this order within each chain."""
    from krun_iptables.restore import TABLES, chains
    from krun_iptables.saved import is_text_of  # late: on most machines nothing is held

    for table in TABLES:
        mine, held = [rule for rule in rules if rule.table == table], state.table(table)
        if set(held.chains) != set(chains(mine, table=table)):
            return False
        lines = [*held.inside, *held.outside]
        for chain in {rule.chain for rule in mine} | {line.partition(" ")[0] for line in lines}:
            there = [line for line in lines if line.partition(" ")[0] == chain]
            wanted = standing(mine, chain=chain)
            if len(there) != len(wanted) or not all(map(is_text_of, there, wanted)):
                return False
    return True


def marks(state: State) -> frozenset[int]:
    """The marks that rules of ours set: a routing rule for one of them is ours."""
    found: set[int] = set()
    for line in state.table("mangle").inside:
        words = line.split()
        if "--set-xmark" in words:
            found.add(int(words[words.index("--set-xmark") + 1].partition("/")[0], 0))
    return frozenset(found)
