"""What krun-iptables shares with its siblings: variables, ports, log fields (docs/environment.md, docs/process.md)."""

from __future__ import annotations

READS = frozenset(
    {
        "CLOUD_RUN_JOB",
        "CLOUD_RUN_WORKER_POOL",
        "ISTIO_INBOUND_PORTS",
        "ISTIO_LOCAL_EXCLUDE_PORTS",
        "ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE",
        "KRUN_INIT_FD",
        "KRUN_IPTABLES",
        "KRUN_LOG_FORMAT",
        "KRUN_LOG_LEVEL",
        "KUBERNETES_SERVICE_HOST",
        "K_SERVICE",
        "OUTBOUND_IP_RANGES_INCLUDE",
        "OUTBOUND_PORTS_EXCLUDE",
        "PROXY_GID",
        "PROXY_UID",
    }
)
SETS: frozenset[str] = frozenset()
PORTS: dict[str, int] = {"ENVOY_CAPTURED_OUT": 15001, "ENVOY_CAPTURED_IN": 15006, "HBONE_H2C": 15009, "STATUS": 15019}
# Istio's own, which nobody of ours listens on: its tunnel, the agent's status, Envoy's health and statistics.
FOREIGN_TUNNEL = 15008
FOREIGN_STATUS = (15020, 15021, 15090)
FOREIGN_PORTS = (FOREIGN_TUNNEL, *FOREIGN_STATUS)
LOG_FIELDS: frozenset[str] = frozenset({"count", "source"})
