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
        "MESH_NETWORK",
        "CA_POOL",
        "CAROOT_*",
        "OUTBOUND_IP_RANGES_INCLUDE",
        "OUTBOUND_PORTS_EXCLUDE",
        "STARTUP_PROBE_HTTP",
        "STARTUP_PROBE_TCP",
        "PORT_*",
        "KRUN_GATEWAY",
        "KRUN_CERTS",
        "KRUN_MESH_NAMESPACES",
    }
)
# What the config map mesh-env may set, beside PORT_* and CAROOT_*.
MESH_ENV = frozenset(
    {
        "PROJECT_ID",
        "PROJECT_NUMBER",
        "CLUSTER_NAME",
        "CLUSTER_LOCATION",
        "TRUST_DOMAIN",
        "XDS_ADDR",
        "MESH_TENANT",
        "MCON_ADDR",
        "IMCON_ADDR",
        "MESH_NETWORK",
        "CA_POOL",
        "OUTBOUND_IP_RANGES_INCLUDE",
        "OUTBOUND_PORTS_EXCLUDE",
        "STARTUP_PROBE_HTTP",
        "STARTUP_PROBE_TCP",
        "KRUN_GATEWAY",
        "KRUN_MESH_NAMESPACES",
    }
)
READS = SETS | {
    "K_SERVICE",
    "CLOUD_RUN_JOB",
    "CLOUD_RUN_WORKER_POOL",
    "KUBERNETES_SERVICE_HOST",
    "KUBERNETES_SERVICE_PORT",
    "KUBECONFIG",
    "PROXY_CONFIG",
    "GOOGLE_APPLICATION_CREDENTIALS",
    "CLOUDSDK_CONFIG",
    "CLOUDSDK_AUTH_IMPERSONATE_SERVICE_ACCOUNT",
    "CLOUDSDK_API_ENDPOINT_OVERRIDES_*",
    "CLOUDSDK_AUTH_TOKEN_HOST",
    "KRUN_TOKEN_CACHE",
    "KRUN_MODE",
    "KRUN_FALLBACK",
    "ISTIO_META_INTERCEPTION_MODE",
    "GCE_METADATA_HOST",
    "GCE_METADATA_TIMEOUT",
    "NO_GCE_CHECK",
    "KRUN_INIT_FD",
    "KRUN_LOG_LEVEL",
    "KRUN_LOG_FORMAT",
}
PORTS = {"APP": 8080, "ISTIOD": 15012, "SNI_PASSTHROUGH": 15443}
# Of Envoy, pilot-agent, hboned and sshd: none of them is the application.
OWN_PORTS = range(15000, 15100)
LOG_FIELDS = frozenset({"address", "reason", "source", "count", "expires"})
