"""What becomes of a packet by a list of rules: they are walked in the kernel's order, and every step is kept.

Pure: no rule of the kernel is read. The order of tables is netfilter's: raw, mangle, nat, filter. A connection that
was made here is asked of nat once, on its way out: when it stays on this machine it comes in by ``lo`` again, and there
passes PREROUTING of raw and mangle, but not of nat (nf_nat_inet_fn: its destination is settled already).
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING

from krun_iptables.packet import LOOPBACK, Packet, misfit
from krun_iptables.record import Record
from krun_iptables.rule import BUILT_IN, DROP, IN_REDIRECT, INPUT, OUTPUT, PREROUTING, REDIRECT, TPROXY, Rule

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Literal

    from krun_iptables.rule import Table

    Chains = dict[tuple[Table, str], list[Rule]]
    Place = tuple[Table, str]

LEAVING: tuple[Place, ...] = (("raw", OUTPUT), ("mangle", OUTPUT), ("nat", OUTPUT), ("filter", OUTPUT))
BACK_BY_LOOPBACK: tuple[Place, ...] = (("raw", PREROUTING), ("mangle", PREROUTING))
ARRIVING: tuple[Place, ...] = (*BACK_BY_LOOPBACK, ("nat", PREROUTING))
INSIDE: tuple[Place, ...] = (("mangle", INPUT), ("nat", INPUT), ("filter", INPUT))
# Chains that only carry out what the rule that leads there has decided.
ENDS = (REDIRECT, IN_REDIRECT, TPROXY, DROP)
# Where REDIRECT leads a packet that was made here; one that came in goes to its interface's address.
HERE = {4: ip_address("127.0.0.1"), 6: ip_address("::1")}


class Step(Record):
    """One rule that was looked at; ``number`` is its place in its chain, from 1."""

    number: int
    rule: Rule
    misfit: str  # what of the packet did not fit; empty: the rule was carried out


class Explanation(Record):
    """How it ends for a packet, and how it came to that."""

    packet: Packet  # as it set out
    # pass: nobody takes it. redirect, tproxy: a local listener at ``port`` gets it.
    kind: Literal["pass", "redirect", "tproxy", "drop"]
    port: int  # where it arrives: the packet's own when nobody takes it
    rule: Rule | None  # the one that decides; None: none does
    chain: str  # where it ends; empty when nobody takes it
    steps: tuple[Step, ...]
    zone: int  # of conntrack, as set by table raw


def explain(rules: Iterable[Rule], packet: Packet, *, local: bool = False) -> Explanation:
    """Walk the rules. ``local``: the packet was made here and is for this machine (loopback always is)."""
    walk = _Walk(rules, packet)
    if packet.in_interface:
        walk.through(ARRIVING)
        walk.through(INSIDE)
    else:
        walk.through(LEAVING)
        if local or walk.packet.destination.is_loopback:
            walk.packet = walk.packet.but(in_interface=LOOPBACK, out_interface="")
            walk.through(BACK_BY_LOOPBACK)
            walk.through(INSIDE)
    return Explanation(
        packet=packet,
        kind=walk.kind,
        port=walk.port or packet.port,
        rule=walk.decider or walk.spared,
        chain=walk.end,
        steps=tuple(walk.steps),
        zone=walk.packet.zone,
    )


def chains(rules: Iterable[Rule], family: int) -> Chains:
    """The rules of one family as they stand in the kernel: those with a position are inserted there."""
    found: Chains = {}
    for rule in rules:
        if rule.family == family:
            chain = found.setdefault((rule.table, rule.chain), [])
            chain.insert(rule.position - 1 if rule.position else len(chain), rule)
    return found


class _Walk:
    """The packet on its way, as the rules change it, and what was seen."""

    def __init__(self, rules: Iterable[Rule], packet: Packet) -> None:
        self.packet = packet
        self.chains = chains(rules, packet.family)
        self.steps: list[Step] = []
        self.kind: Literal["pass", "redirect", "tproxy", "drop"] = "pass"
        self.port = 0
        self.end = ""
        self.jumps: list[Rule] = []  # that led to the chain it is in
        self.decider: Rule | None = None
        self.spared: Rule | None = None  # the last rule that let it go

    def through(self, places: Iterable[Place]) -> None:
        """Pass the built-in chains in this order, until one drops it."""
        for table, chain in places:
            if self.kind != "drop":
                self._chain(table, chain)

    def _chain(self, table: Table, chain: str) -> bool:
        """Pass one chain; True when the packet is done with this table."""
        for number, rule in enumerate(self.chains.get((table, chain), ()), start=1):
            differs = misfit(rule.match, self.packet)
            self.steps.append(Step(number=number, rule=rule, misfit=differs))
            if differs:
                continue
            match rule.target.kind:
                case "jump":
                    self.jumps.append(rule)
                    is_done = self._chain(table, rule.target.chain)
                    self.jumps.pop()
                    if is_done:
                        return True
                case "return":
                    self.spared = rule
                    return chain in BUILT_IN
                case _:
                    if self._carry_out(rule):
                        return True
        return False

    def _carry_out(self, rule: Rule) -> bool:
        """Do what a rule says; True when the packet is done with this table."""
        target = rule.target
        match target.kind:
            case "accept":
                self.spared = rule
            case "drop":
                self._decide(rule, "drop")
            case "redirect":
                self._decide(rule, "redirect")
                # From here on other rules see where it goes now.
                here = self.packet.destination if self.packet.in_interface else HERE[self.packet.family]
                self.packet = self.packet.but(destination=here, port=target.port)
            case "tproxy":
                self._decide(rule, "tproxy")
                self.packet = self.packet.but(mark=target.mark)
            case "mark":
                self.packet = self.packet.but(mark=target.mark)
            case "save":
                self.packet = self.packet.but(connection_mark=self.packet.mark)
            case "restore":
                self.packet = self.packet.but(mark=self.packet.connection_mark)
            case "zone":
                # The first one counts: what has a conversation already keeps it (xt_ct_target, nft_ct_set_zone_eval).
                self.packet = self.packet.but(zone=self.packet.zone or target.zone)
        return target.kind in ("accept", "drop", "redirect", "tproxy")

    def _decide(self, rule: Rule, kind: Literal["redirect", "tproxy", "drop"]) -> None:
        if kind == "drop" or self.kind != "tproxy":  # the listener that TPROXY has given it stays
            self.kind, self.port, self.end = kind, rule.target.port, rule.chain
            self.decider = self.jumps[-1] if rule.chain in ENDS and self.jumps else rule
