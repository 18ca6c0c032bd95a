"""What became of a connection, as the result of a proof. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from krun_iptables.verify_check import Check

if TYPE_CHECKING:
    from collections.abc import Collection

    from krun_iptables.verify_attempt import Attempt
    from krun_iptables.verify_listener import Key

HINT = "are the rules in force, with the same settings? krun-iptables --dry-run prints them"


def judge(attempt: Attempt, *, taken: Collection[Key], is_answered: bool, limit: float) -> Check:
    """The result. ``taken``: whose ports other programs have; ``is_answered``: whether an answer had to come back."""
    if attempt.untried is not None:
        return attempt.untried
    if not attempt.probe.is_intercepted:
        return _spared(attempt, taken=taken)
    if attempt.where in taken:
        return _led_to_others(attempt, limit=limit)
    return _led(attempt, is_answered=is_answered, limit=limit)


def _spared(attempt: Attempt, *, taken: Collection[Key]) -> Check:
    name, rule = attempt.probe.name, attempt.probe.wanted.rule
    why = rule.reason if rule is not None else "no rule takes it"
    if attempt.arrival is not None:
        text = f"is led to port {attempt.arrival.port}, and must not be: {why}"
        return Check(name=name, outcome="fail", text=text, hint=HINT)
    if not attempt.is_tcp and any(protocol == "udp" for _, protocol, _ in taken):
        return Check(name=name, outcome="unknown", text="another program has the port that DNS is led to")
    return Check(name=name, outcome="ok", text=f"is not intercepted: {why}")


def _led(attempt: Attempt, *, is_answered: bool, limit: float) -> Check:
    name, packet, port = attempt.probe.name, attempt.probe.packet, attempt.probe.wanted.port
    arrival = attempt.arrival
    if arrival is None or arrival.port != port:
        return _elsewhere(attempt, limit=limit)
    if attempt.is_tcp and arrival.wanted != (packet.destination, packet.port):
        wanted = "nowhere that it knew" if arrival.wanted is None else f"{arrival.wanted[0]} port {arrival.wanted[1]}"
        text = f"arrived at port {port}, but the kernel says that it wanted to go to {wanted}"
        return Check(name=name, outcome="fail", text=text, hint="conntrack is needed for SO_ORIGINAL_DST")
    if not is_answered:
        return Check(name=name, outcome="ok", text=f"arrived at port {port}")
    if not attempt.is_answered:
        text = f"arrived at port {port}, but no answer came back"
        return Check(name=name, outcome="fail", text=text, hint="is there another rule that drops it?")
    return Check(name=name, outcome="ok", text=f"arrived at port {port}, and the answer came back")


def _led_to_others(attempt: Attempt, *, limit: float) -> Check:
    name, port = attempt.probe.name, attempt.probe.wanted.port
    if not attempt.is_tcp:
        return Check(name=name, outcome="unknown", text=f"another program has port {port}, and it may be the agent")
    if attempt.arrival is not None and attempt.arrival.port == port:
        return Check(name=name, outcome="ok", text=f"arrived at port {port}, which another program has")
    if attempt.arrival is None and attempt.is_connected and attempt.is_over:
        text = f"another program has port {port}, and closed the connection before it could be seen there"
        return Check(name=name, outcome="unknown", text=text)
    return _elsewhere(attempt, limit=limit)


def _elsewhere(attempt: Attempt, *, limit: float) -> Check:
    port = attempt.probe.wanted.port
    if attempt.arrival is not None:
        text = f"arrived at port {attempt.arrival.port} instead of {port}"
    elif attempt.reason:
        text = f"did not arrive at port {port}: {attempt.reason}"
    elif attempt.is_connected:
        text = f"did not arrive at port {port}: it went elsewhere"
    else:
        text = f"did not arrive at port {port}: nothing came within {limit:g} s"
    return Check(name=attempt.probe.name, outcome="fail", text=text, hint=HINT)
