"""What hgate shares with its siblings: variables, ports, log fields (docs/environment.md, docs/process.md)."""

from __future__ import annotations

READS = frozenset(
    {
        "KRUN_CA_FILE",
        "KRUN_CONNECT_TO",
        "KRUN_ID_TOKEN_COMMAND",
        "KRUN_ID_TOKEN_FILE",
        "CLOUD_RUN_JOB",
        "CLOUD_RUN_WORKER_POOL",
        "KUBERNETES_SERVICE_HOST",
        "K_SERVICE",
        "KRUN_INIT_FD",
        "KRUN_LOG_FORMAT",
        "KRUN_LOG_LEVEL",
        "KRUN_ROUTES",
    }
)
SETS: frozenset[str] = frozenset()
PORTS = {"ENVOY_MTLS": 15003, "SNI_GATE": 15442}
LOG_FIELDS = frozenset(
    {"address", "count", "duration_ms", "peer", "reason", "received", "sent", "sni", "status", "url"}
)
