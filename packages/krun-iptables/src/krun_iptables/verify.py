"""Proves interception by using it: connections that rules lead somewhere are made, and seen to arrive there.

After Istio's own validation (tools/istio-iptables/pkg/validation), which dials as the proxy; and beyond it: what goes
out, DNS, and what must not be intercepted.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from krun_iptables import verify_owner, verify_plan, verify_round
from krun_iptables.errors import Exit, Failure
from krun_iptables.rules import rules as rules_of
from krun_iptables.settings import PROBE_PORT
from krun_iptables.verify_check import Check
from krun_iptables.verify_machine import Machine

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from krun_iptables.rule import Rule
    from krun_iptables.settings import Settings
    from krun_iptables.verify_listener import Key

PAUSE = 0.5  # seconds between two rounds: rules of somebody else's may still be on their way


class Unproven(Failure):
    """A proof failed; the status is that of Istio's own validation (tools/istio-iptables/pkg/cmd/root.go)."""

    exit_code = Exit.CANNOT_RUN


def prove(rules: Sequence[Rule], *, timeout: float, port: int = PROBE_PORT) -> tuple[Check, ...]:
    """One round of all that can be proven about these rules here, within ``timeout`` seconds; see ``plan``."""
    machine = Machine(rules)
    planned = verify_plan.plan(rules, machine, port=port)
    proxies = machine.proxies(rules, machine.owners()[0])
    checks = verify_round.run(planned.probes, _ports(rules), agent=proxies[0] if proxies else None, timeout=timeout)
    unproven = [
        Check(name=one.name, outcome="unknown", text=one.reason, denied=not verify_owner.is_root())
        for one in planned.unproven
    ]
    return (*checks, *unproven)


def validate(*, settings: Settings, seconds: float, say: Callable[[str], object] | None = None) -> int:
    """Prove it, again and again until it succeeds or the ``seconds`` are over, and say each check of the last round.

    Returns the exit status: 0; 126 when a proof failed or nothing could be proven; 77 when root could have proven some.
    """
    decided = rules_of(settings)
    deadline = time.monotonic() + seconds
    while True:
        checks = prove(decided, timeout=max(deadline - time.monotonic(), PAUSE), port=settings.probe_port)
        if status(checks) != Exit.CANNOT_RUN or deadline - time.monotonic() < PAUSE:
            break
        time.sleep(PAUSE)
    for check in checks:
        (say or _to_stderr)(check.line)
    return status(checks)


def status(checks: Sequence[Check]) -> int:
    """What the checks mean together, as an exit status."""
    if any(check.outcome == "fail" for check in checks):
        return Exit.CANNOT_RUN
    if any(check.outcome == "ok" for check in checks):
        return Exit.OK
    return Exit.DENIED if any(check.denied for check in checks) else Exit.CANNOT_RUN


def _to_stderr(line: str) -> None:
    sys.stderr.write(f"krun-iptables: {line}\n")


def _ports(rules: Sequence[Rule]) -> tuple[Key, ...]:
    """Every port that rules lead to."""
    found: dict[Key, None] = {}
    for rule in rules:
        if rule.target.kind == "redirect":
            found[rule.family, rule.match.protocol, rule.target.port] = None
    return tuple(found)
