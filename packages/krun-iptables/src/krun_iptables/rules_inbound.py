"""Rules for what comes in, by REDIRECT or TPROXY, and the chains that lead to Envoy."""

from __future__ import annotations

from krun_iptables import rule as r
from krun_iptables.rule import ACCEPT, ANY, DISCARD, RETURN, Match, Target, jump

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from krun_iptables.families import Families
    from krun_iptables.rule import Rule
    from krun_iptables.settings import Settings

TCP = Match(protocol="tcp")
KNOWN = ("RELATED", "ESTABLISHED")


def invalid(settings: Settings, of: Families) -> Iterator[Rule]:
    """Drop what no connection expects, so that it does not reset one."""
    if settings.drop_invalid:
        match = Match(states=("INVALID",))
        yield from of.both("mangle", r.PREROUTING, match, jump(r.DROP), "what no connection expects is dropped")
        yield from of.both("mangle", r.DROP, ANY, DISCARD, "it would reset a connection")


def redirects(settings: Settings, of: Families) -> Iterator[Rule]:
    """The chains that lead to Envoy, and the tunnel that goes past them."""
    inbound = settings.captures_inbound or not settings.inbound_is_optional
    if inbound:
        port = settings.inbound_tunnel_port
        why = f"port {port} is Envoy's tunnel, it listens there itself"
        yield from of.both("nat", r.IN, TCP.but(port=port), RETURN, why)
    out = Target(kind="redirect", port=settings.envoy_port)
    yield from of.both("nat", r.REDIRECT, TCP, out, "Envoy takes outgoing connections here")
    if inbound:
        to = Target(kind="redirect", port=settings.inbound_capture_port)
        yield from of.both("nat", r.IN_REDIRECT, TCP, to, "Envoy takes incoming connections here")


def ports(settings: Settings, of: Families) -> Iterator[Rule]:
    """Which ports are intercepted when others call them."""
    if not settings.captures_inbound:
        return
    table: r.Table = "mangle" if settings.is_tproxy else "nat"
    if settings.is_tproxy:
        yield from _tproxy_chains(settings, of)
    yield from of.both(table, r.PREROUTING, TCP, jump(r.IN), "all incoming TCP is looked at")
    if settings.all_inbound_ports:
        for port in settings.inbound_exclude_ports:
            yield from of.both(table, r.IN, TCP.but(port=port), RETURN, f"port {port} is never intercepted inwards")
        yield from _intercepted(settings, of, TCP, why="every other port is intercepted inwards")
        return
    for port in settings.inbound_ports:
        yield from _intercepted(settings, of, TCP.but(port=port), why=f"port {port} is intercepted inwards")


def _intercepted(settings: Settings, of: Families, match: Match, *, why: str) -> Iterator[Rule]:
    if not settings.is_tproxy:
        yield from of.both("nat", r.IN, match, jump(r.IN_REDIRECT), why)
        return
    known = match.but(states=KNOWN)
    yield from of.both("mangle", r.IN, known, jump(r.DIVERT), "a connection that Envoy has goes on to it")
    yield from of.both("mangle", r.IN, match, jump(r.TPROXY), why)


def _tproxy_chains(settings: Settings, of: Families) -> Iterator[Rule]:
    mark = settings.tproxy_mark
    marked = Target(kind="mark", mark=mark)
    yield from of.both("mangle", r.DIVERT, ANY, marked, f"mark {mark} is routed to this machine")
    yield from of.both("mangle", r.DIVERT, ANY, ACCEPT, "and nothing else is asked")
    target = Target(kind="tproxy", port=settings.inbound_capture_port, mark=mark)
    for loopback in of.loopback:
        match = Match(not_destination=loopback, protocol="tcp")
        why = "Envoy takes incoming connections here, with their own addresses"
        yield from of.one("mangle", r.TPROXY, match, target, why)
