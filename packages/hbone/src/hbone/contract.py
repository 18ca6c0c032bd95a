"""What hbone shares with its siblings: variables, ports, log fields (docs/environment.md, docs/process.md)."""

from __future__ import annotations

READS = frozenset(
    {
        "K_SERVICE",
        "KRUN_APP_PROTOCOL",
        "KRUN_BIND",
        "KRUN_CA_FILE",
        "KRUN_CONNECT_TO",
        "KRUN_ID_TOKEN_COMMAND",
        "KRUN_ID_TOKEN_FILE",
        "CLOUD_RUN_JOB",
        "CLOUD_RUN_WORKER_POOL",
        "KUBERNETES_SERVICE_HOST",
        "KRUN_INIT_FD",
        "KRUN_LOG_FORMAT",
        "KRUN_LOG_LEVEL",
        "KRUN_LOOPBACK",
        "KRUN_NOTIFY_FD",
        "KRUN_OFFER",
        "KRUN_PUBLIC",
        "KRUN_WORKERS",
        "KRUN_WORKER_TIMEOUT",
        "PORT",
        "PORT_*",
    }
)
SETS: frozenset[str] = frozenset()
PORTS = {"APP": 8080, "ENVOY_MTLS": 15003, "HBONE_H2C": 15009}
LOG_FIELDS = frozenset(
    {
        "address",
        "count",
        "duration_ms",
        "peer",
        "pid",
        "reason",
        "received",
        "sent",
        "signal",
        "status",
        "target",
        "url",
    }
)
# Ports of Envoy and of Istio's agent: whoever reaches one of them from outside owns the workload. Never offered.
FOREIGN_PORTS = frozenset({15000, 15001, 15004, 15006, 15020, 15053, 15090})
