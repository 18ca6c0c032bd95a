"""The guard: while ours is replaced in more than one step, nothing goes in or out.

A set of iptables' rules is one transaction a table and family. Between two of them a connection could pass that
neither the old nor the new set lets pass by. So ``--reconcile`` drops TCP and UDP meanwhile, as Istio's own does
(tools/istio-iptables/pkg/builder/iptables_builder_impl.go, buildGuardrails); but by a chain of a name, so that one that
was left behind is found. nft's own rules need none: there all of it is one transaction.
"""

from __future__ import annotations

from krun_iptables.rule import GUARD

CHAIN = GUARD
PLACES = [(where, protocol) for where in ("INPUT", "FORWARD", "OUTPUT") for protocol in ("tcp", "udp")]
JUMPS = [f"{where} -p {protocol} -j {CHAIN}" for where, protocol in PLACES]
UP = "\n".join(["*filter", f":{CHAIN} - [0:0]", f"-A {CHAIN} -j DROP", *(f"-I {jump}" for jump in JUMPS), "COMMIT", ""])
GONE = "\n".join(["*filter", *(f"-D {jump}" for jump in JUMPS), f"-F {CHAIN}", f"-X {CHAIN}", "COMMIT", ""])


def is_up(saved: str) -> bool:
    """Whether what ``iptables-save`` says has the guard."""
    return f"\n:{CHAIN} " in saved


def down(saved: str) -> str:
    """The text that takes away what of it is there."""
    if not is_up(saved):
        return ""
    jumps = [f"-D {line[3:]}" for line in saved.splitlines() if line.startswith("-A ") and line.endswith(f"-j {CHAIN}")]
    return "\n".join(["*filter", *jumps, f"-F {CHAIN}", f"-X {CHAIN}", "COMMIT", ""])
