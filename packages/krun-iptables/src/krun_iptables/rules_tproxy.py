"""Marks for TPROXY: a connection's packets find their way back to Envoy, and nothing comes to it twice."""

from __future__ import annotations

from krun_iptables import rule as r
from krun_iptables.rule import RETURN, Match, Target

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from krun_iptables.families import Families
    from krun_iptables.rule import Rule
    from krun_iptables.settings import Settings

# What Envoy sends to its own workload; fixed in Istio (OutboundMark).
OUTBOUND_MARK = 1338
TCP = Match(protocol="tcp")


def marks(settings: Settings, of: Families) -> Iterator[Rule]:
    """They are there with TPROXY also where no port is intercepted, as Istio's are."""
    if not settings.is_tproxy:
        return
    mark = settings.tproxy_mark
    own = TCP.but(mark=mark)
    save = Target(kind="save")
    yield from of.both("mangle", r.PREROUTING, own, save, "the connection keeps the mark that Envoy gave its packets")
    why = "Envoy's packets to the application are marked already"
    yield from of.both("mangle", r.OUTPUT, own.but(out_interface="lo"), RETURN, why)
    for uid in settings.proxy_uids:
        yield from _to_workload(of, Match(uid=uid), who=f"uid {uid}")
    for gid in settings.proxy_gids:
        yield from _to_workload(of, Match(gid=gid), who=f"gid {gid}")
    restore = Target(kind="restore")
    why = "the application's answers are routed to Envoy"
    yield from of.both("mangle", r.OUTPUT, TCP.but(connection_mark=mark), restore, why)
    yield from of.both("mangle", r.IN, own, RETURN, "what Envoy sends does not come to it again", position=1)
    for source in of.passthrough:
        match = TCP.but(source=source, in_interface="lo")
        yield from of.one("mangle", r.IN, match, RETURN, "Envoy hands it to the application", position=2)
    match = TCP.but(in_interface="lo", not_mark=OUTBOUND_MARK)
    yield from of.both("mangle", r.IN, match, RETURN, "the application calls itself", position=3)


def _to_workload(of: Families, owner: Match, *, who: str) -> Iterator[Rule]:
    for loopback in of.loopback:
        match = owner.but(not_destination=loopback, protocol="tcp", out_interface="lo")
        why = f"Envoy ({who}) calls its own workload by its address: that comes in as from others"
        yield from of.one("mangle", r.OUTPUT, match, Target(kind="mark", mark=OUTBOUND_MARK), why)
