"""What is looked for, and what must be known in the end: the identity of the workload. Pure, given the sources."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from krun_discover import contract
from krun_discover.errors import Failure, Misconfigured, Unreachable
from krun_discover.resolve import Resolution, Resolved

# Nobody needs these without a control plane: they are printed when they are known, and not asked for.
FOR_CONTROL_PLANE = ("PROJECT_ID", "PROJECT_NUMBER", "CLUSTER_NAME", "CLUSTER_LOCATION")
IDENTITY = ("WORKLOAD_NAMESPACE", "TRUST_DOMAIN")
PROMISING = ("K_SERVICE", "CLOUD_RUN_JOB", "CLOUD_RUN_WORKER_POOL")
# RFC 1123, as Kubernetes names namespaces.
LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


@dataclass(frozen=True, kw_only=True)
class Discovered:
    """Every variable that was looked for, sorted by name, and what is wrong with them, if anything."""

    found: tuple[Resolved, ...]
    failure: Failure | None

    @property
    def values(self) -> dict[str, str]:
        """The variables that have a value."""
        return {item.name: item.value for item in self.found if item.value}


def discover(resolution: Resolution, *, environ: Mapping[str, str]) -> Discovered:
    """Find all variables of the contract."""
    names = {name for name in contract.SETS if not name.endswith("*")} | resolution.names()
    spare = set(FOR_CONTROL_PLANE) if _no_control_plane(resolution) else set()
    found = {name: resolution.find(name) for name in sorted(names - spare)}
    # Last, as a rule above may have needed one of them after all.
    found |= {name: resolution.glance(name) for name in spare}
    return Discovered(found=tuple(found[name] for name in sorted(found)), failure=_judge(found, environ=environ))


def _no_control_plane(resolution: Resolution) -> bool:
    address = resolution.value("XDS_ADDR")
    return address == "-" or (not address and bool(resolution.value("KRUN_GATEWAY")))


def _judge(found: Mapping[str, Resolved], *, environ: Mapping[str, str]) -> Failure | None:
    platform = next((name for name in PROMISING if environ.get(name)), "")
    unsure = [name for name in IDENTITY if found[name].failed]
    if platform and unsure:
        reason = next(attempt.note for attempt in found[unsure[0]].tried if attempt.failed)
        return Unreachable(
            f"metadata server, which {platform} promises, for {' and '.join(unsure)}: {reason}",
            hint=f"set {' and '.join(unsure)}, or NO_GCE_CHECK=true to go on with defaults; --explain tells more",
        )
    namespace = found["WORKLOAD_NAMESPACE"]
    if not LABEL.fullmatch(namespace.value):
        return Misconfigured(
            f"WORKLOAD_NAMESPACE={namespace.value!r} (from {namespace.source}) is not the name of a namespace",
            hint="small letters, digits and dashes, 63 at most, as Kubernetes names namespaces",
        )
    return None
