"""Settings to rules, as data: Istio's rules in the order in which Istio's own tool makes them, each with its reason.

The order is that of tools/istio-iptables/pkg/capture/run.go, with a rule's IPv6 twin behind it. Where we differ is said
in docs/decisions/0002.
"""

from __future__ import annotations

from krun_iptables import rule as r
from krun_iptables import rules_dns, rules_inbound, rules_tproxy
from krun_iptables.families import Families
from krun_iptables.rule import ANY, RETURN, Match, jump

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from krun_iptables.network import Network
    from krun_iptables.routes import Routes
    from krun_iptables.rule import Rule
    from krun_iptables.settings import Settings


def rules(settings: Settings) -> tuple[Rule, ...]:
    """Every rule, of both families, in Istio's order of making; those of one chain stand in it in that order."""
    of = Families(settings)
    return (
        *_interfaces(settings, of),
        *rules_inbound.invalid(settings, of),
        *rules_inbound.redirects(settings, of),
        *rules_inbound.ports(settings, of),
        *_outbound(settings, of),
        *rules_tproxy.marks(settings, of),
    )


def routes(settings: Settings) -> Routes:
    """What TPROXY and Envoy's IPv6 pass-through need besides rules (tools/common/tproxy/run_linux.go)."""
    from krun_iptables.routes import Routes

    routed = settings.is_tproxy and settings.captures_inbound
    return Routes(
        mark=settings.tproxy_mark if routed else None,
        table=settings.tproxy_table,
        ipv6=settings.ipv6,
    )


def _interfaces(settings: Settings, of: Families) -> Iterator[Rule]:
    for table in ("nat", "mangle") if settings.is_tproxy else ("nat",):
        for name in settings.exclude_interfaces:
            why = f"interface {name} is left alone"
            yield from of.both(table, r.PREROUTING, Match(in_interface=name), RETURN, why)
            yield from of.both(table, r.OUTPUT, Match(out_interface=name), RETURN, why)
    for name in settings.virtual_interfaces:
        match = Match(in_interface=name)
        yield from of.both("nat", r.PREROUTING, match, RETURN, f"what {name} brings is no incoming traffic", position=1)


def _outbound(settings: Settings, of: Families) -> Iterator[Rule]:
    yield from of.both("nat", r.OUTPUT, ANY, jump(r.OUT), "everything that leaves is looked at")
    for port in settings.outbound_exclude_ports:
        for protocol in ("tcp", "udp"):
            why = f"port {port} is never intercepted outwards"
            yield from of.both("nat", r.OUT, Match(protocol=protocol, port=port), RETURN, why)
    for source in of.passthrough:
        why = "Envoy hands an incoming connection to the application"
        yield from of.one("nat", r.OUT, Match(out_interface="lo", source=source), RETURN, why)
    for uid in settings.proxy_uids:
        yield from _proxy(settings, of, uid=uid)
    for gid in settings.proxy_gids:
        yield from _proxy(settings, of, gid=gid)
    yield from _groups(settings, of)
    yield from rules_dns.capture(settings, of)
    for loopback in of.loopback:
        yield from of.one("nat", r.OUT, Match(destination=loopback), RETURN, "loopback is never intercepted")
    for network in _by_family(settings.outbound_exclude_ranges):
        yield from of.one("nat", r.OUT, Match(destination=network), RETURN, f"{network} is never intercepted")
    for port in settings.outbound_ports:
        match = Match(protocol="tcp", port=port)
        yield from of.both("nat", r.OUT, match, jump(r.REDIRECT), f"port {port} is intercepted at every address")
    yield from _included(settings, of)


def _by_family(networks: tuple[Network, ...]) -> list[Network]:
    return sorted(networks, key=lambda network: network.version)


def _proxy(settings: Settings, of: Families, *, uid: str = "", gid: str = "") -> Iterator[Rule]:
    """The three rules for one of the proxy's ids, in the order that makes the third one mean what is left."""
    who = f"uid {uid}" if uid else f"gid {gid}"
    if settings.captures_inbound or not settings.inbound_is_optional:
        # With DNS capture, what the agent asks a server on this machine is no call to the workload; of users only, sic.
        dns = (53,) if settings.captures_dns and uid else ()
        for loopback in of.loopback:
            match = Match(
                out_interface="lo",
                not_destination=loopback,
                protocol="tcp",
                not_ports=(*dns, settings.inbound_tunnel_port),
                uid=uid,
                gid=gid,
            )
            why = f"Envoy ({who}) calls its own workload by its address: that comes in as from others"
            yield from of.one("nat", r.OUT, match, jump(r.IN_REDIRECT), why)
    if not settings.captures_loopback:
        local = Match(out_interface="lo", not_uid=uid, not_gids=(gid,) if gid else ())
        if settings.captures_dns:
            local = local.but(protocol="tcp", not_ports=(53,))
        yield from of.both(
            "nat", r.OUT, local, RETURN, f"the application calls itself: not {who}, and it does not leave"
        )
    why = f"the proxy's own connections ({who}) do not come back to it"
    yield from of.both("nat", r.OUT, Match(uid=uid, gid=gid), RETURN, why)


def _groups(settings: Settings, of: Families) -> Iterator[Rule]:
    if settings.all_groups:
        for group in settings.exclude_groups:
            yield from of.both("nat", r.OUT, Match(gid=group), RETURN, f"group {group} is exempt")
        return
    named = ", ".join(settings.groups) or "none"
    why = f"only these groups are intercepted: {named}"
    yield from of.both("nat", r.OUT, Match(not_gids=settings.groups), RETURN, why)


def _included(settings: Settings, of: Families) -> Iterator[Rule]:
    to_envoy = jump(r.REDIRECT)
    if settings.all_outbound:
        for family in of.families:
            why = "all that is left is intercepted"
            yield from of.one("nat", r.OUT, ANY, to_envoy, why, family=family)
            for name in settings.virtual_interfaces:
                match = Match(in_interface=name)
                why = f"what {name} brings goes out, and is intercepted"
                yield from of.one("nat", r.PREROUTING, match, to_envoy, why, family=family, position=1)
        return
    for network in _by_family(settings.outbound_ranges):
        for name in settings.virtual_interfaces:
            match = Match(in_interface=name, destination=network)
            why = f"what {name} brings for {network} goes out, and is intercepted"
            yield from of.one("nat", r.PREROUTING, match, to_envoy, why, position=1)
        why = f"connections to {network} are intercepted"
        yield from of.one("nat", r.OUT, Match(destination=network), to_envoy, why)
