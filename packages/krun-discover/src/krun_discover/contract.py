"""What krun-discover shares with its siblings: variables, ports, log fields (docs/environment.md, docs/process.md)."""

from __future__ import annotations

SETS = frozenset(
    {
        "MESH",
        "WORKLOAD_NAMESPACE",
        "WORKLOAD_NAME",
        "WORKLOAD_SERVICE_ACCOUNT",
        "PROJECT_ID",
        "PROJECT_NUMBER",
        "CLUSTER_NAME",
        "CLUSTER_LOCATION",
        "TRUST_DOMAIN",
        "XDS_ADDR",
        "MESH_TENANT",
        "MCON_ADDR",
        "IMCON_ADDR",
        "PORT_*",
        "KRUN_GATEWAY",
        "KRUN_CERTS",
        "KRUN_MESH_NAMESPACES",
    }
)
READS = SETS | {
    "K_SERVICE",
    "CLOUD_RUN_JOB",
    "CLOUD_RUN_WORKER_POOL",
    "KUBERNETES_SERVICE_HOST",
    "GCE_METADATA_HOST",
    "GCE_METADATA_TIMEOUT",
    "NO_GCE_CHECK",
    "KRUN_INIT_FD",
    "KRUN_LOG_LEVEL",
    "KRUN_LOG_FORMAT",
}
PORTS = {"APP": 8080, "SNI_PASSTHROUGH": 15443}
LOG_FIELDS = frozenset({"address", "reason", "source", "count"})
