"""DestinationRules of people that take mutual TLS from calls of a service outside: those calls cannot pass the gate.

Nothing of somebody's is changed, and which rule is meant by whom cannot be known: its owner is told.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from hgate.declaration import Ref
from hgate.declaration_read import NETWORKING, is_ours, ref_of
from hgate.policy import NAMESPACE as SYSTEM
from hgate.routes import DOMAIN

MUTUAL = "ISTIO_MUTUAL"
HINT = f"say tls.mode: {MUTUAL} in it, or take it away; without it the gate's own rule holds"

Object = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class ForeignRule:
    """One of them. ``host``: in full, or with an asterisk before it; ``modes``: what it says instead."""

    ref: Ref
    host: str
    modes: tuple[str, ...]

    def hinders(self, service: str, namespace: str) -> bool:
        """Tell whether it decides about calls of a service, for all callers or those of its own namespace."""
        name = f"{service}.{namespace}.{DOMAIN}"
        if self.ref.namespace == SYSTEM:
            return False  # Istio asks the mesh's own last, and finds ours before
        if self.host.startswith("*"):
            return name.endswith(self.host[1:]) and self.ref.namespace != namespace  # there ours says it exactly
        return name == self.host


def is_of_interest(item: Object) -> bool:
    """Tell whether a DestinationRule is one of these."""
    return not is_ours(item) and bool(_modes(item))


def read(item: Object) -> ForeignRule | None:
    """The rule, ``None`` when it is of no interest."""
    if not is_of_interest(item):
        return None
    ref = ref_of(item, kind="DestinationRule", version=NETWORKING)
    host = str(item["spec"].get("host", ""))
    if "." not in host and not host.startswith("*"):
        host = f"{host}.{ref.namespace}.{DOMAIN}"
    return ForeignRule(ref=ref, host=host, modes=_modes(item))


def reasons(
    rules: Iterable[ForeignRule], services: Iterable[tuple[str, str]]
) -> Iterator[tuple[ForeignRule, str, str]]:
    """Each rule that hinders calls of one of these services (name, namespace), why, and what to do: each rule once."""
    known = list(services)
    for rule in rules:
        hindered = [f"{service}.{namespace}" for service, namespace in known if rule.hinders(service, namespace)]
        if hindered:
            more = f" and {len(hindered) - 1} more" if len(hindered) > 1 else ""
            modes = ", ".join(rule.modes)
            reason = f"tls.mode {modes}: calls of {hindered[0]}{more} are not the mesh's mutual TLS, and cannot pass"
            yield rule, reason, HINT


def _modes(item: Object) -> tuple[str, ...]:
    """The modes of TLS in it that are not the mesh's own, each once."""
    spec: Mapping[str, Any] = item.get("spec") or {}
    policies = [spec.get("trafficPolicy"), *(each.get("trafficPolicy") for each in spec.get("subsets") or ())]
    found: dict[str, None] = {}
    for policy in policies:
        for part in (policy or {}, *((policy or {}).get("portLevelSettings") or ())):
            tls = part.get("tls")
            if tls is not None and tls.get("mode", "DISABLE") != MUTUAL:
                found[str(tls.get("mode", "DISABLE"))] = None
    return tuple(found)
