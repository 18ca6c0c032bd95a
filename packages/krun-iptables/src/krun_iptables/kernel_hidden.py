"""Rules of ours in a table of iptables' that iptables does not show: somebody has put a rule into it by nft.

``iptables-nft-save`` leaves such a table out, and still changes it. So the kernel is asked for the rules itself, and
ours go by their handles, with nft. What they were is not known: they are replaced, and never brought back.
"""

from __future__ import annotations

from _socket import AF_INET, AF_INET6

from krun_iptables import kernel_netlink as netlink
from krun_iptables.backend import HIDES
from krun_iptables.errors import Unreachable
from krun_iptables.record import Record
from krun_iptables.restore import TABLES
from krun_iptables.rule import BUILT_IN, CHAINS, GUARD
from krun_iptables.words import MARK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from krun_iptables.rule import Family

SAYS = "# Table `"
OURS = (*CHAINS, GUARD)
FAMILIES: dict[Family, tuple[int, str]] = {4: (AF_INET, "ip"), 6: (AF_INET6, "ip6")}
# linux/netfilter/nf_tables.h
GET_CHAIN, GET_RULE = 10 << 8 | 4, 10 << 8 | 7  # NFNL_SUBSYS_NFTABLES, NFT_MSG_*
CHAIN_TABLE, CHAIN_NAME = 1, 3
RULE_TABLE, RULE_CHAIN, RULE_HANDLE, RULE_EXPRESSIONS = 1, 2, 3, 4
EXPRESSION_NAME, EXPRESSION_DATA = 1, 2
VERDICT_OF_DATA, VERDICT = 2, 2  # NFTA_IMMEDIATE_DATA, NFTA_DATA_VERDICT
VERDICT_CHAIN = 2
MATCH_NAME, MATCH_INFO = 1, 3


class Hidden(Record):
    """What of ours one such table holds."""

    family: Family
    table: str
    chains: tuple[str, ...]
    outside: tuple[tuple[str, int], ...]  # rules of ours in others' chains: the chain, and the rule's handle

    def clear(self, *, but: Sequence[str] = ()) -> str:
        """The transaction that takes them away; chains that are wanted stay, with the rules that they have now."""
        place = f"{FAMILIES[self.family][1]} {self.table}"
        gone = [chain for chain in self.chains if chain not in but]
        lines = [f"delete rule {place} {chain} handle {handle}" for chain, handle in self.outside]
        lines += [f"flush chain {place} {chain}" for chain in gone] + [
            f"delete chain {place} {chain}" for chain in gone
        ]
        return "".join(f"{line}\n" for line in lines)


def find(saved: str, *, family: Family) -> tuple[Hidden, ...]:
    """What of ours is in the tables that a text of ``iptables-nft-save`` leaves out.

    Raises:
        Unreachable: the kernel does not tell.
    """
    lines = (line for line in saved.splitlines() if line.startswith(SAYS) and HIDES in line)
    names = [line[len(SAYS) :].partition("'")[0] for line in lines]
    found = (_table(name, family=family) for name in names if name in TABLES)
    return tuple(one for one in found if one.chains or one.outside)


def _table(name: str, *, family: Family) -> Hidden:
    number = FAMILIES[family][0]
    body = bytes([number, 0, 0, 0])
    try:
        chains = [netlink.unpack(answer[4:]) for answer in netlink.ask(netlink.NETFILTER, GET_CHAIN, body)]
        rules = [netlink.unpack(answer[4:]) for answer in netlink.ask(netlink.NETFILTER, GET_RULE, body)]
    except OSError as error:
        raise Unreachable(f"table {name}: iptables does not show it, nor does the kernel: {error.strerror}") from None
    mine = [_text(one.get(CHAIN_NAME, b"")) for one in chains if _text(one.get(CHAIN_TABLE, b"")) == name]
    outside: list[tuple[str, int]] = []
    for one in rules:
        chain = _text(one.get(RULE_CHAIN, b""))
        if _text(one.get(RULE_TABLE, b"")) == name and chain not in OURS and _is_ours(one, chain=chain):
            outside.append((chain, int.from_bytes(one[RULE_HANDLE], "big")))
    return Hidden(
        family=family, table=name, chains=tuple(chain for chain in mine if chain in OURS), outside=tuple(outside)
    )


def _is_ours(rule: dict[int, bytes], *, chain: str) -> bool:
    """As in ``restore``: it leads into a chain of ours, or stands in one of the kernel's and has our comment."""
    for name, data in _expressions(rule.get(RULE_EXPRESSIONS, b"")):
        if name == "immediate":
            verdict = netlink.unpack(netlink.unpack(data.get(VERDICT_OF_DATA, b"")).get(VERDICT, b""))
            if _text(verdict.get(VERDICT_CHAIN, b"")) in OURS:
                return True
        if name == "match" and _text(data.get(MATCH_NAME, b"")) == "comment" and chain in BUILT_IN:
            return _text(data.get(MATCH_INFO, b"").partition(b"\0")[0]) == MARK
    return False


def _expressions(packed: bytes) -> Iterator[tuple[str, dict[int, bytes]]]:
    for element in netlink.elements(packed):
        one = netlink.unpack(element)
        yield _text(one.get(EXPRESSION_NAME, b"")), netlink.unpack(one.get(EXPRESSION_DATA, b""))


def _text(name: bytes) -> str:
    return name.rstrip(b"\0").decode(errors="surrogateescape")
