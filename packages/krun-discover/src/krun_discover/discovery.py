"""What is looked for, and what must be known in the end: the mesh and the workload's identity. Pure, given sources.

Needed is the control plane's address, unless there is none; who the workload is; and, where istiod is asked directly,
its root certificates. All else is taken when it costs nothing: it comes along with what was needed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from krun_discover import contract
from krun_discover.errors import Failure, Misconfigured, Unreachable
from krun_discover.record import Record
from krun_discover.resolve import Resolution, Resolved

# Nobody needs these without a control plane: they are printed when they are known, and not asked for.
FOR_CONTROL_PLANE = frozenset({"PROJECT_ID", "PROJECT_NUMBER", "CLUSTER_NAME", "CLUSTER_LOCATION"})
IDENTITY = ("WORKLOAD_NAMESPACE", "TRUST_DOMAIN")
ROOTS = "CAROOT_ISTIOD"
RANGES = "OUTBOUND_IP_RANGES_INCLUDE"  # worth two requests where a cluster was found, and none where not
OPTIONAL = frozenset(
    {
        "MESH_TENANT",
        "MCON_ADDR",
        "IMCON_ADDR",
        "MESH_NETWORK",
        "CA_POOL",
        ROOTS,
        "OUTBOUND_IP_RANGES_INCLUDE",
        "OUTBOUND_PORTS_EXCLUDE",
        "STARTUP_PROBE_HTTP",
        "STARTUP_PROBE_TCP",
        "KRUN_GATEWAY",
        "KRUN_CERTS",
        "KRUN_MESH_NAMESPACES",
    }
)
PROMISING = ("K_SERVICE", "CLOUD_RUN_JOB", "CLOUD_RUN_WORKER_POOL")
# RFC 1123, as Kubernetes names namespaces.
LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


class Discovered(Record):
    """Every variable that was looked for, sorted by name, and what is wrong with them, if anything."""

    found: tuple[Resolved, ...]
    failure: Failure | None

    @property
    def values(self) -> dict[str, str]:
        """The variables that have a value."""
        return {item.name: item.value for item in self.found if item.value}


def discover(
    resolution: Resolution, *, environ: Mapping[str, str], lost: Callable[[], Failure | None] = lambda: None
) -> Discovered:
    """Find all variables of the contract; ``lost`` tells why the search for a cluster failed, if it did."""
    found: dict[str, Resolved] = {}
    has_control_plane = not is_without_control_plane(resolution)
    if has_control_plane:
        found["XDS_ADDR"] = resolution.find("XDS_ADDR")
        if found["XDS_ADDR"].value.endswith(f":{contract.PORTS['ISTIOD']}"):
            found[ROOTS] = resolution.find(ROOTS)
    # Only now, as what was found may bring names along.
    if has_control_plane:
        found[RANGES] = resolution.find(RANGES)
    names = {name for name in contract.SETS if not name.endswith("*")} | resolution.names()
    spare = OPTIONAL | ({"XDS_ADDR"} if not has_control_plane else set())
    spare |= FOR_CONTROL_PLANE if not has_control_plane else frozenset()
    needed = sorted(names - spare - set(found))
    found |= {name: resolution.find(name) for name in needed}
    # Last, as a rule above may have needed one of them after all.
    found |= {name: resolution.glance(name) for name in names - set(found)}
    failure = lost() if has_control_plane and not found["XDS_ADDR"].value else None
    failure = failure or _judge(found, environ=environ)
    return Discovered(found=tuple(found[name] for name in sorted(found)), failure=failure)


def is_without_control_plane(resolution: Resolution) -> bool:
    """Tell whether somebody has said that there is none: XDS_ADDR is ``-``, or only a gateway is named."""
    address = resolution.peek("XDS_ADDR")
    return address == "-" or (not address and bool(resolution.peek("KRUN_GATEWAY")))


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
