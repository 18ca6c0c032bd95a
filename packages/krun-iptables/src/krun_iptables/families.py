"""One decision as a rule for each address family that is on."""

from __future__ import annotations

from krun_iptables.network import network
from krun_iptables.rule import Rule

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from krun_iptables.network import Network
    from krun_iptables.rule import Family, Match, Table, Target
    from krun_iptables.settings import Settings

LOOPBACK6 = network("::1/128")
# Envoy's source address when it hands an incoming connection to the application (InboundPassthroughBindIpv4, …Ipv6).
PASSTHROUGH = (network("127.0.0.6/32"), network("::6/128"))


class Families:
    """Makes rules; none of IPv6 where that is off."""

    def __init__(self, settings: Settings) -> None:
        self.families: tuple[Family, ...] = (4, 6) if settings.ipv6 else (4,)
        self.loopback: tuple[Network, ...] = (settings.loopback, LOOPBACK6)
        self.passthrough: tuple[Network, ...] = PASSTHROUGH

    def both(
        self, table: Table, chain: str, match: Match, target: Target, reason: str, *, position: int = 0
    ) -> Iterator[Rule]:
        """The same rule for each family."""
        for family in self.families:
            yield from self.one(table, chain, match, target, reason, family=family, position=position)

    def one(
        self,
        table: Table,
        chain: str,
        match: Match,
        target: Target,
        reason: str,
        *,
        family: Family | None = None,
        position: int = 0,
    ) -> Iterator[Rule]:
        """One rule, of the family that its addresses have unless it is said; nothing when that is off."""
        family = family or _family(match)
        if family in self.families:
            yield Rule(
                family=family, table=table, chain=chain, match=match, target=target, reason=reason, position=position
            )


def _family(match: Match) -> Family:
    network = match.source or match.destination or match.not_destination
    assert network is not None  # noqa: S101 - a rule without addresses is made for both
    return network.version
