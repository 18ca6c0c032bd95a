"""Rules that lead DNS to the agent, and keep its own questions apart from the application's (conntrack zones)."""

from __future__ import annotations

from krun_iptables import rule as r
from krun_iptables.contract import FOREIGN_DNS
from krun_iptables.network import network
from krun_iptables.rule import ANY, Match, Target, jump

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from krun_iptables.families import Families
    from krun_iptables.rule import Family, Rule
    from krun_iptables.settings import Settings

DNS = 53
AGENT_PORT = FOREIGN_DNS
# From the agent to servers and back; from the application to the agent and back.
UPSTREAM, APPLICATION = 1, 2
TO_AGENT = Target(kind="redirect", port=AGENT_PORT)


def capture(settings: Settings, of: Families) -> Iterator[Rule]:
    """All of them, or none."""
    if not settings.captures_dns:
        return
    yield from of.both("raw", r.OUTPUT, ANY, jump(r.OUT_DNS), "DNS that leaves is told apart")
    for family in of.families:
        if settings.capture_all_dns or settings.servers(family):
            why = "DNS that leaves is looked at"
            yield from of.one("nat", r.OUT, ANY, jump(r.OUT_DNS), why, family=family)
    for protocol in ("tcp", "udp"):
        for family in of.families:
            for match, whose in _places(settings, family=family):
                question = match.but(protocol=protocol, port=DNS)
                why = f"{whose} is asked through the agent, by {protocol}"
                yield from of.one("nat", r.OUT_DNS, question, TO_AGENT, why, family=family)
    for uid in settings.proxy_uids:
        yield from _owned(of, Match(uid=uid), who=f"uid {uid}")
    for gid in settings.proxy_gids:
        yield from _owned(of, Match(gid=gid), who=f"gid {gid}")
    for family in of.families:
        yield from _zones(settings, of, family=family)


def _places(settings: Settings, *, family: Family) -> Iterator[tuple[Match, str]]:
    """Whom a question has to go to, to be led to the agent; and that in words."""
    if settings.capture_all_dns:
        yield ANY, "every DNS server"
        return
    for server in settings.servers(family):
        yield Match(destination=network(f"{server}/{8 * len(server.packed)}")), f"DNS server {server}"


def _owned(of: Families, owner: Match, *, who: str) -> Iterator[Rule]:
    why = f"what the agent ({who}) asks servers is a conversation of its own"
    yield from of.both("raw", r.OUT_DNS, owner.but(protocol="udp", port=DNS), _zone(UPSTREAM), why)
    why = f"what the agent ({who}) answers belongs to the application's question"
    yield from of.both("raw", r.OUT_DNS, owner.but(protocol="udp", source_port=AGENT_PORT), _zone(APPLICATION), why)


def _zones(settings: Settings, of: Families, *, family: Family) -> Iterator[Rule]:
    places = list(_places(settings, family=family))
    if places:
        yield from of.one("raw", r.PREROUTING, ANY, jump(r.IN), "DNS that comes in is told apart", family=family)
    for match, whose in places:
        question = match.but(protocol="udp", port=DNS)
        why = f"what the application asks {whose} is a conversation of its own"
        yield from of.one("raw", r.OUT_DNS, question, _zone(APPLICATION), why, family=family)
        answer = Match(protocol="udp", source=match.destination, source_port=DNS)
        why = f"what {whose} answers belongs to the agent's question"
        yield from of.one("raw", r.IN, answer, _zone(UPSTREAM), why, family=family)


def _zone(number: int) -> Target:
    return Target(kind="zone", zone=number)
