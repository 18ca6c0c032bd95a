"""The texts that were given to settings, by Istio's defaults or by krun's own."""

from __future__ import annotations

from krun_iptables import values
from krun_iptables.arguments import Given
from krun_iptables.choice import switch, wrong
from krun_iptables.contract import FOREIGN_STATUS, FOREIGN_TUNNEL, PORTS
from krun_iptables.interfaces import usable
from krun_iptables.network import network
from krun_iptables.options import OPTIONS
from krun_iptables.settings import PROXY_ID, Settings, is_loopback

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

    from krun_iptables.choice import Choice
    from krun_iptables.facts import Facts

    Reader = Callable[[Given, Facts], dict[str, Any]]

ENVOY_USER = "istio-proxy"
MOST_GROUPS = 64  # included, all in one rule (tools/common/config/validation.go)
LARGEST_NUMBER = 2**32 - 1
TABLES_OF_THE_KERNEL = (253, 254, 255)
# krun's own defaults, see docs/decisions/0002.
OWN_RANGES = "10.0.0.0/8"
OWN_LOOPBACK = network("127.0.0.0/8")
# Tunnels are mTLS or h2 already: captured once more, they would run in a circle.
ALWAYS_EXCLUDED = (FOREIGN_TUNNEL, PORTS["HBONE_H2C"])
# What the platform, a prober or a scraper asks must answer without a certificate.
ALWAYS_EXCLUDED_INBOUND = (FOREIGN_TUNNEL, PORTS["HBONE_H2C"], PORTS["STATUS"], *FOREIGN_STATUS)


def settings(choice: Choice, *, facts: Facts, environ: Mapping[str, str]) -> Settings:
    """Read all of them.

    Raises:
        WrongUse, Misconfigured: a text is wrong; the flag or the variable, and the entry, are named.
        Unreachable: the machine does not tell its addresses.
    """
    found: dict[str, Any] = {"dry_run_file": environ.get("DRY_RUN_FILE_PATH", "")}
    for key, given in choice.given.items():
        if key in READERS:
            found.update(READERS[key](given, facts))
    found.update(_istio(found, facts=facts, environ=environ) if choice.is_istio else _own(found, choice, facts=facts))
    decided = Settings(**found)
    if decided.redirect_dns and not decided.capture_all_dns:
        decided = decided.but(dns_servers=facts.servers())
    return decided


def _istio(found: Mapping[str, Any], *, facts: Facts, environ: Mapping[str, str]) -> dict[str, Any]:
    """What Istio's tool finds out (FillConfigFromEnvironment)."""
    uids = found.get("proxy_uids") or (_user(environ.get("ENVOY_USER", ENVOY_USER), facts),)
    families = usable(facts.addresses())
    return {
        "proxy_uids": uids,
        "proxy_gids": found.get("proxy_gids") or uids,
        "ipv6": 6 in families and (found.get("dual_stack", False) or 4 not in families),
    }


def _user(name: str, facts: Facts) -> str:
    uid = facts.uid(name)
    return PROXY_ID if uid is None else str(uid)


def _own(found: Mapping[str, Any], choice: Choice, *, facts: Facts) -> dict[str, Any]:
    """What krun has decided for its workloads: see docs/decisions/0002."""
    given = choice.given.get("outbound_ranges") or Given(key="outbound_ranges", name="--include", text=OWN_RANGES)
    is_all = found.get("all_outbound", False)
    ranges = found.get("outbound_ranges", (values.network(given, OWN_RANGES),))
    if not ranges and not is_all:
        raise wrong(given, "holds no range: nothing would be intercepted", hint=f"the default is {OWN_RANGES}")
    loopback = found.get("loopback", OWN_LOOPBACK)
    for one in ranges:
        if is_loopback(one.network_address) and "loopback" not in found:
            hint = f"leave out what lies in {loopback}: parts of one workload talk there"
            raise wrong(given, "is loopback, which is never intercepted", hint=hint, entry=str(one))
    never = _once((*found.get("inbound_exclude_ports", ()), *ALWAYS_EXCLUDED_INBOUND))
    # krun's Envoy listens on IPv4; IPv6 is led to one where it is asked for, and a range of it is not refused.
    wants_6 = found.get("dual_stack", any(one.version == 6 for one in ranges))
    return {
        "loopback": loopback,
        "inbound_is_optional": True,
        "outbound_ranges": () if is_all else _once(ranges),
        "outbound_exclude_ports": _once((*found.get("outbound_exclude_ports", ()), *ALWAYS_EXCLUDED)),
        "inbound_exclude_ports": never,
        "inbound_ports": tuple(port for port in found.get("inbound_ports", ()) if port not in never),
        "ipv6": wants_6 and 6 in usable(facts.addresses()),
    }


def _once(all_of_them: Iterable[Any]) -> tuple[Any, ...]:
    return tuple(dict.fromkeys(all_of_them))


def _ranges(given: Given, facts: Facts) -> dict[str, Any]:
    hint = f"{values.RANGES_HINT}; * is everything"
    # Of krun's names a star takes all the others in; Istio's tool takes one alone.
    if values.EVERYTHING in (values.entries(given.text) if given.is_own else [given.text.strip()]):
        return {"all_outbound": True}
    found = values.networks(given, hint=hint)
    return {"outbound_ranges": found, "names_loopback": values.names_loopback(given.text)}


def _inbound(given: Given, facts: Facts) -> dict[str, Any]:
    text = given.text.strip()
    if text == values.EVERYTHING:
        return {"all_inbound_ports": True}
    found = values.ports(given, star=True)
    if text and not found:
        raise wrong(given, "holds no port", hint=values.PORTS_HINT)
    return {"inbound_ports": found}


def _uids(given: Given, facts: Facts) -> dict[str, Any]:
    return {"proxy_uids": _some(given, values.owners(given, find=facts.uid, what="user"))} if given.text else {}


def _gids(given: Given, facts: Facts) -> dict[str, Any]:
    return {"proxy_gids": _some(given, values.owners(given, find=facts.gid, what="group"))} if given.text else {}


def _some(given: Given, found: tuple[str, ...]) -> tuple[str, ...]:
    if not found:
        raise wrong(given, "holds no id: the proxy's own connections would come back to it", hint="as 1337")
    return found


def _groups(given: Given, facts: Facts) -> dict[str, Any]:
    if given.text.strip() == values.EVERYTHING:
        return {}
    found = values.owners(given, find=facts.gid, what="group")
    if len(found) > MOST_GROUPS:
        hint = "they make one rule; exclude others by ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE instead"
        raise wrong(given, f"are {len(found)} groups, and {MOST_GROUPS} are the most", hint=hint)
    return {"all_groups": False, "groups": found}


def _exempt(given: Given, facts: Facts) -> dict[str, Any]:
    return {"exclude_groups": values.owners(given, find=facts.gid, what="group")}


def _mark(given: Given, facts: Facts) -> dict[str, Any]:
    # 0 is what packets without a mark have: all of them would be routed to this machine.
    hint = f"a number from 1 to {LARGEST_NUMBER}"
    return {"tproxy_mark": values.number(given, given.text.strip(), most=LARGEST_NUMBER, what="mark", hint=hint)}


def _table(given: Given, facts: Facts) -> dict[str, Any]:
    hint = f"a number from 1 to {LARGEST_NUMBER}, but for 253, 254 and 255"
    found = values.number(given, given.text.strip(), most=LARGEST_NUMBER, what="routing table", hint=hint)
    if found in TABLES_OF_THE_KERNEL:
        raise wrong(given, "is a routing table of the kernel's own", hint=hint)
    return {"tproxy_table": found}


def _kind(given: Given, facts: Facts) -> dict[str, Any]:
    known = ("auto", "legacy", "nft") if given.is_own else ("", "legacy", "nft")
    return {"force_iptables_binary": values.one_of(given, known).replace("auto", "")}


def _one(read: Callable[[Given], object]) -> Reader:
    return lambda given, facts: {given.key: read(given)}


def _path(given: Given) -> str:
    if given.text and not given.text.isprintable():
        raise wrong(given, "is no path", hint="as /run/netns/NAME")
    return given.text


READERS: dict[str, Reader] = {
    "outbound_ranges": _ranges,
    "outbound_exclude_ranges": _one(values.networks),
    "outbound_ports": _one(values.ports),
    "outbound_exclude_ports": _one(values.ports),
    "groups": _groups,
    "exclude_groups": _exempt,
    "loopback": _one(values.loopback),
    "inbound_ports": _inbound,
    "inbound_exclude_ports": _one(values.ports),
    "mode": lambda given, facts: {"mode": values.one_of(given, ("", "REDIRECT", "TPROXY")) or "REDIRECT"},
    "tproxy_mark": _mark,
    "tproxy_table": _table,
    "exclude_interfaces": _one(values.interfaces),
    "virtual_interfaces": _one(values.interfaces),
    "proxy_uids": _uids,
    "proxy_gids": _gids,
    "force_iptables_binary": _kind,
    "network_namespace": _one(_path),
    "probe_timeout": _one(values.seconds),
    **dict.fromkeys(("envoy_port", "inbound_capture_port", "inbound_tunnel_port", "probe_port"), _one(values.port)),
    **dict.fromkeys(
        (option.key for option in OPTIONS if option.is_switch and option.key in Settings._fields), _one(switch)
    ),
}
