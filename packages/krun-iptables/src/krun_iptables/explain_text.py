"""An explanation in words, and as JSON values."""

from __future__ import annotations

from typing import TYPE_CHECKING

from krun_iptables import rule as r
from krun_iptables.words import rule_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from krun_iptables.explain import Explanation, Step
    from krun_iptables.packet import Packet
    from krun_iptables.rule import Rule

WHOSE = {
    r.REDIRECT: "Envoy's outbound port",
    r.IN_REDIRECT: "Envoy's inbound port",
    r.TPROXY: "Envoy's inbound port",
    r.OUT_DNS: "the agent's DNS port",
}


def decision(found: Explanation) -> str:
    """What becomes of it, and why, as one sentence."""
    return f"{_end(found)}: {_reason(found)}"


def _end(found: Explanation) -> str:
    whose = WHOSE.get(found.chain, "port")
    match found.kind:
        case "redirect":
            return f"led to {whose} {found.port}"
        case "tproxy":
            return f"led to {whose} {found.port}, with its source address"
        case "drop":
            return "dropped"
        case "pass":
            return "arrives as it is" if found.packet.in_interface else "leaves as it is"


def _reason(found: Explanation) -> str:
    if found.rule is not None:
        return found.rule.reason
    if not found.steps:
        return f"there is no rule for IPv{found.packet.family}"
    coming = f"that comes in to port {found.packet.port}"
    return f"no rule intercepts {found.packet.protocol} " + (
        coming if found.packet.in_interface else f"to {place(found.packet)}"
    )


def place(packet: Packet) -> str:
    """ADDRESS:PORT, with brackets around IPv6."""
    host = f"[{packet.destination}]" if packet.destination.version == 6 else str(packet.destination)
    return f"{host}:{packet.port}"


def subject(packet: Packet) -> str:
    """The packet itself: what, where to, whose."""
    parts = [f"{packet.protocol} to {place(packet)}"]
    if packet.source is not None:
        parts.append(f"from {packet.source}")
    if packet.in_interface:
        parts.append(f"comes in by {packet.in_interface}")
    elif packet.out_interface:
        parts.append(f"goes out by {packet.out_interface}")
    if packet.uids:
        parts.append(f"uid {packet.uids[0]}")
    if packet.gids:
        parts.append(f"gid {packet.gids[0]}")
    return ", ".join(parts)


def lines(found: Explanation, *, all_steps: bool = False) -> Iterator[str]:
    """For a person: the packet, the decision, and a line for each rule that fitted; or for each that was looked at."""
    yield subject(found.packet)
    yield decision(found)
    for step in found.steps:
        if all_steps or not step.misfit:
            yield _line(step, is_decider=step.rule is found.rule)


def _line(step: Step, *, is_decider: bool) -> str:
    rule = step.rule
    sign = "=>" if is_decider else "- " if step.misfit else "  "
    why = f"not: its {step.misfit} differs" if step.misfit else rule.reason
    return f"{sign} {rule.table} {rule.chain} {step.number}: {words(rule)}  # {why}"


def words(rule: Rule) -> str:
    """What follows ``-A CHAIN`` in iptables' words."""
    return rule_text(rule).split(" ", 3 if rule.position else 2)[-1]


def as_json(found: Explanation) -> dict[str, object]:
    """All of it as JSON values."""
    packet = found.packet
    return {
        "protocol": packet.protocol,
        "destination": str(packet.destination),
        "port": packet.port,
        "source": str(packet.source) if packet.source else None,
        "interface": packet.in_interface or packet.out_interface or None,
        "direction": "inbound" if packet.in_interface else "outbound",
        "uid": packet.uids[0] if packet.uids else None,
        "gid": packet.gids[0] if packet.gids else None,
        "decision": found.kind,
        "arrives_at": None if found.kind == "drop" else found.port,
        "text": decision(found),
        "rule": None if found.rule is None else _row(found.rule),
        "steps": [
            {**_row(step.rule), "number": step.number, "matched": not step.misfit, "differs": step.misfit or None}
            for step in found.steps
        ],
    }


def _row(rule: Rule) -> dict[str, object]:
    return {
        "family": rule.family,
        "table": rule.table,
        "chain": rule.chain,
        "rule": words(rule),
        "reason": rule.reason,
    }
