"""What krun-iptables shares with its siblings: variables, ports, log fields (docs/environment.md, docs/process.md)."""

from __future__ import annotations

READS = frozenset(
    {
        "CLOUD_RUN_JOB",
        "CLOUD_RUN_WORKER_POOL",
        "KUBERNETES_SERVICE_HOST",
        "K_SERVICE",
        "KRUN_INIT_FD",
        "KRUN_LOG_LEVEL",
        "KRUN_LOG_FORMAT",
        "OUTBOUND_IP_RANGES_INCLUDE",
        "OUTBOUND_PORTS_EXCLUDE",
    }
)
SETS: frozenset[str] = frozenset()
PORTS: dict[str, int] = {"HBONE_H2C": 15009}
# A port of Istio that none of ours listens on: its own tunnel (HBoneInboundListenPort in Istio's sources).
FOREIGN_PORTS = (15008,)
LOG_FIELDS: frozenset[str] = frozenset()
