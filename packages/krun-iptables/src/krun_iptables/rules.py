"""Settings to rules, as data: Istio's chains in Istio's order, and for each rule the reason why it is there.

The order is that of Istio's own tool (tools/istio-iptables/pkg/capture/run.go), without DNS, TPROXY and IPv6. Where
we differ is said in docs/decisions/0002: loopback is 127.0.0.0/8, and what leads to the inbound port is only there
when incoming connections are intercepted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from krun_iptables.contract import FOREIGN_TUNNEL, PORTS
from krun_iptables.settings import ANYWHERE, LOOPBACK, Settings

TABLE = "nat"
OUT = "ISTIO_OUTPUT"
REDIRECT = "ISTIO_REDIRECT"
IN = "ISTIO_INBOUND"
IN_REDIRECT = "ISTIO_IN_REDIRECT"
CHAINS = (IN, REDIRECT, IN_REDIRECT, OUT)
# Envoy's source address when it hands an incoming connection to the application (InboundPassthroughBindIpv4).
PASSTHROUGH = "127.0.0.6/32"
RETURN = ("RETURN",)


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One rule of table nat; the words are iptables' own."""

    chain: str
    match: tuple[str, ...] = ()
    target: tuple[str, ...]
    reason: str

    @property
    def text(self) -> str:
        """The rule as ``iptables-save`` writes it after its ``-A``."""
        return " ".join((self.chain, *self.match, "-j", *self.target))


def rules(settings: Settings) -> tuple[Rule, ...]:
    """Every rule, in the order in which they are to stand."""
    return (*_redirects(settings), *_inbound(settings), *_outbound(settings))


def chains(decided: Iterable[Rule]) -> tuple[str, ...]:
    """Those of our chains that the rules need, in order of first use."""
    return tuple(dict.fromkeys(rule.chain for rule in decided if rule.chain in CHAINS))


def _port(number: int) -> tuple[str, ...]:
    return ("-p", "tcp", "-m", "tcp", "--dport", str(number))


def _redirects(settings: Settings) -> Iterator[Rule]:
    yield _redirect(REDIRECT, "ENVOY_CAPTURED_OUT", "Envoy takes outgoing connections here")
    if settings.captures_inbound:
        yield _redirect(IN_REDIRECT, "ENVOY_CAPTURED_IN", "Envoy takes incoming connections here")


def _redirect(chain: str, name: str, reason: str) -> Rule:
    return Rule(chain=chain, match=("-p", "tcp"), target=("REDIRECT", "--to-ports", str(PORTS[name])), reason=reason)


def _inbound(settings: Settings) -> Iterator[Rule]:
    if not settings.captures_inbound:
        return
    yield Rule(chain="PREROUTING", match=("-p", "tcp"), target=(IN,), reason="all incoming TCP is looked at")
    for port in settings.inbound_exclude_ports:
        yield Rule(chain=IN, match=_port(port), target=RETURN, reason=f"port {port} is never intercepted inwards")
    if settings.captures_all_inbound:
        yield Rule(chain=IN, match=("-p", "tcp"), target=(IN_REDIRECT,), reason="every other port is intercepted")
    for port in settings.inbound_ports:
        yield Rule(chain=IN, match=_port(port), target=(IN_REDIRECT,), reason=f"port {port} is intercepted inwards")


def _outbound(settings: Settings) -> Iterator[Rule]:
    yield Rule(chain="OUTPUT", target=(OUT,), reason="everything that leaves is looked at")
    for port in settings.exclude_ports:
        yield Rule(chain=OUT, match=_port(port), target=RETURN, reason=f"port {port} is never intercepted outwards")
    yield Rule(
        chain=OUT,
        match=("-s", PASSTHROUGH, "-o", "lo"),
        target=RETURN,
        reason="Envoy hands an incoming connection to the application",
    )
    for owner, ids in (("uid", settings.proxy_uids), ("gid", settings.proxy_gids)):
        for number in ids:
            yield from _proxy(settings, owner=owner, number=str(number))
    for number in settings.exempt_gids:
        yield Rule(chain=OUT, match=_owner("gid", str(number)), target=RETURN, reason=f"group {number} is exempt")
    yield Rule(chain=OUT, match=("-d", str(LOOPBACK)), target=RETURN, reason="loopback is never intercepted")
    for network in settings.include:
        where = () if network == ANYWHERE else ("-d", str(network))
        yield Rule(chain=OUT, match=where, target=(REDIRECT,), reason=f"connections to {network} are intercepted")


def _owner(owner: str, number: str, *, negated: bool = False) -> tuple[str, ...]:
    return ("-m", "owner", *(["!"] if negated else []), f"--{owner}-owner", number)


def _proxy(settings: Settings, *, owner: str, number: str) -> Iterator[Rule]:
    """The three rules for one of the proxy's ids, in the order that makes the third one mean what is left."""
    if settings.captures_inbound:
        yield Rule(
            chain=OUT,
            match=("!", "-d", str(LOOPBACK), "-o", "lo", "-p", "tcp", "-m", "tcp", "!", "--dport", str(FOREIGN_TUNNEL))
            + _owner(owner, number),
            target=(IN_REDIRECT,),
            reason=f"Envoy ({owner} {number}) calls its own workload by its address: that comes in as from others",
        )
    yield Rule(
        chain=OUT,
        match=("-o", "lo", *_owner(owner, number, negated=True)),
        target=RETURN,
        reason=f"the application calls itself: not {owner} {number}, and it does not leave",
    )
    yield Rule(
        chain=OUT,
        match=_owner(owner, number),
        target=RETURN,
        reason=f"the proxy's own connections ({owner} {number}) do not come back to it",
    )
