"""What hgate shares with its siblings: variables, ports, log fields (docs/environment.md, docs/process.md)."""

from __future__ import annotations

READS = frozenset(
    {
        "KRUN_CA_FILE",
        "KRUN_CONNECT_TO",
        "KRUN_ID_TOKEN_COMMAND",
        "KRUN_ID_TOKEN_FILE",
        "CLOUDSDK_API_ENDPOINT_OVERRIDES_*",
        "CLOUDSDK_AUTH_TOKEN_HOST",
        "CLOUD_RUN_JOB",
        "CLOUD_RUN_WORKER_POOL",
        "CLUSTER_LOCATION",
        "CLUSTER_NAME",
        "GCE_METADATA_HOST",
        "GOOGLE_APPLICATION_CREDENTIALS",
        "KUBECONFIG",
        "KUBERNETES_SERVICE_HOST",
        "K_SERVICE",
        "KRUN_INIT_FD",
        "KRUN_LOG_FORMAT",
        "KRUN_LOG_LEVEL",
        "KRUN_ROUTES",
        "MESH_NETWORK",
        "NO_GCE_CHECK",
        "PROJECT_ID",
        "PROJECT_NUMBER",
        "TRUST_DOMAIN",
    }
)
# In the config map mesh-env, for workloads outside.
SETS = frozenset(
    {
        "CAROOT_*",
        "CLUSTER_LOCATION",
        "CLUSTER_NAME",
        "IMCON_ADDR",
        "MCON_ADDR",
        "MESH_NETWORK",
        "MESH_TENANT",
        "OUTBOUND_IP_RANGES_INCLUDE",
        "PROJECT_ID",
        "PROJECT_NUMBER",
        "TRUST_DOMAIN",
    }
)
PORTS = {"ENVOY_MTLS": 15003, "SNI_GATE": 15442, "STATUS": 15019}
LOG_FIELDS = frozenset(
    {
        "account",
        "address",
        "audience",
        "count",
        "duration_ms",
        "hint",
        "peer",
        "pid",
        "reason",
        "received",
        "replica",
        "resource",
        "sent",
        "sni",
        "source",
        "status",
        "url",
        "verb",
    }
)
