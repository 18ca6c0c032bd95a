"""Decides whether connections are intercepted: what was asked for, what is in force, what is possible (pure)."""

from __future__ import annotations

from collections.abc import Mapping

from krun_launch.errors import Denied, Misconfigured
from krun_launch.facts import Facts
from krun_launch.identity import PROXY
from krun_launch.mesh_names import VIRTUAL_RANGE
from krun_launch.record import Record

CAPTURED = "captured"
WHITEBOX = "whitebox"
ARRIVES = "127.0.0.1"  # where the kernel leads what it redirects on its way out

RANGES = "OUTBOUND_IP_RANGES_INCLUDE"
# What Envoy of a static mesh has no listener for, whoever asks for it: by the names that win over their twins.
NOT_SERVED = {
    "ISTIO_META_DNS_CAPTURE": "false",
    "ISTIO_INBOUND_INTERCEPTION_MODE": "REDIRECT",
    "ISTIO_DUAL_STACK": "false",
}
# And with Istio's agent: it answers for names, and the proxy takes what comes in by its own address.
OF_THE_AGENT = {"ISTIO_INBOUND_INTERCEPTION_MODE": "REDIRECT"}
DNS = "ISTIO_META_DNS_CAPTURE"
TRUE = frozenset({"1", "t", "true"})
DEFAULT_RANGE = "10.0.0.0/8"  # where clusters have their services and pods, most of them
HINT = "krun-iptables needs root and NET_ADMIN (docker run --cap-add NET_ADMIN); `krun` runs it"


class Interception(Record):
    """``way`` is CAPTURED or WHITEBOX; ``is_second_best`` when rules were tried for and could not be."""

    way: str
    reason: str
    is_second_best: bool = False


def choose(env: Mapping[str, str], *, facts: Facts, has_agent: bool = False) -> Interception:
    """Which way it is, now that the rules are in force or not.

    Args:
        env: the merged environment.
        facts: what was found on the machine.
        has_agent: Istio's agent answers for names: no resolver's file has to be written, unless it is Docker's.

    Raises:
        Denied: captured was asked for, or its fall back forbidden, and it cannot be.
        Misconfigured: rules are in force, and nobody is going to listen where they lead.
        click.BadParameter: a variable has none of its values.
    """
    given = _one_of(env, "KRUN_INTERCEPTION", "redirect", "none")
    in_force = given == "redirect" or (not given and facts.has_rules)
    if refused := _refused(env):
        if in_force:
            raise Misconfigured(
                f"{refused}, and rules of krun-iptables are in force: what they redirect has no listener",
                hint="krun-iptables --remove",
            )
        return Interception(way=WHITEBOX, reason=refused)
    if in_force:
        if why := _cannot(env, facts=facts, has_agent=has_agent):
            raise Denied(f"rules of krun-iptables are in force, and Envoy cannot listen for them: {why}", hint=HINT)
        return Interception(way=CAPTURED, reason="rules of krun-iptables are in force")
    why = "krun-iptables could apply no rules" if given else "no rules of krun-iptables are in force"
    if required := _required(env):
        raise Denied(f"{required}: {_cannot(env, facts=facts, has_agent=has_agent) or why}", hint=HINT)
    return Interception(way=WHITEBOX, reason=why, is_second_best=bool(given))


def rules_wanted(env: Mapping[str, str], *, facts: Facts, has_agent: bool = False) -> dict[str, str]:
    """What krun-iptables is to be told, by variable; nothing when no rules are wanted.

    Raises:
        Denied: captured was asked for, or its fall back forbidden, and it cannot be.
    """
    _one_of(env, "KRUN_INTERCEPTION", "redirect", "none")
    if env.get("KRUN_INTERCEPTION") or _refused(env):
        return {}
    if why := _cannot(env, facts=facts, has_agent=has_agent):
        if required := _required(env):
            raise Denied(f"{required}: {why}", hint=HINT)
        return {}
    ranges = env.get(RANGES) or (DEFAULT_RANGE if has_agent else "")
    if ranges != "*":
        # Names of the mesh are answered with an address of ours, whatever else is intercepted.
        ranges = ",".join(dict.fromkeys([*filter(None, (word.strip() for word in ranges.split(","))), VIRTUAL_RANGE]))
    names = "false" if relays_names(env, facts=facts) else env.get(DNS) or "true"
    served = {**OF_THE_AGENT, DNS: names} if has_agent else NOT_SERVED
    return {RANGES: ranges, "PROXY_UID": str(PROXY), "PROXY_GID": str(PROXY), **served}


def relays_names(env: Mapping[str, str], *, facts: Facts) -> bool:
    """Tell whether a relay brings questions to Istio's agent, as rules cannot."""
    # Late: its module is no business of mode none.
    from krun_launch import resolver

    return (env.get(DNS) or "true").lower() in TRUE and resolver.is_dockers(facts.resolv_conf)


def quoted(value: str) -> str:
    """The value as one word of a POSIX shell."""
    return "'" + value.replace("'", "'\\''") + "'"


def _refused(env: Mapping[str, str]) -> str:
    if env.get("KRUN_MODE") == WHITEBOX:
        return "KRUN_MODE=whitebox"
    if env.get("ISTIO_META_INTERCEPTION_MODE") == "NONE":
        return "ISTIO_META_INTERCEPTION_MODE=NONE"
    return ""


def _required(env: Mapping[str, str]) -> str:
    if env.get("KRUN_MODE") == CAPTURED:
        return "KRUN_MODE=captured"
    return "KRUN_FALLBACK=deny" if _one_of(env, "KRUN_FALLBACK", "allow", "deny") == "deny" else ""


def _cannot(env: Mapping[str, str], *, facts: Facts, has_agent: bool) -> str:
    """Why this process could not serve a workload that is captured, or nothing."""
    loopback = env.get("KRUN_LOOPBACK") or ARRIVES
    if loopback != ARRIVES:
        return f"what is redirected arrives at {ARRIVES}, not at KRUN_LOOPBACK={loopback}"
    needs_file = not has_agent or relays_names(env, facts=facts)
    return facts.cannot_switch or (facts.cannot_capture if needs_file else "")


def _one_of(env: Mapping[str, str], name: str, *values: str) -> str:
    text = env.get(name, "")
    if text and text not in values:
        import click  # late: it is a third of a start

        raise click.BadParameter(f"{name}: {text!r} is not one of {', '.join(values)}")
    return text
