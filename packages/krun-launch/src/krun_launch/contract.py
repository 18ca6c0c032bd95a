"""What krun-launch shares with its siblings: variables, ports, log fields (docs/environment.md, docs/process.md)."""

from __future__ import annotations

READS = frozenset(
    {
        "CLOUD_RUN_JOB",
        "ENVOY_LOG_LEVEL",
        "ISTIO_META_INTERCEPTION_MODE",
        "K8S_UID",
        "KRUN_APP_PROTOCOL",
        "KRUN_APP_TIMEOUT",
        "KRUN_BIND",
        "KRUN_CERTS",
        "KRUN_DRAIN",
        "KRUN_ENVOY",
        "KRUN_ENV_TIMEOUT",
        "KRUN_FALLBACK",
        "KRUN_GATEWAY",
        "KRUN_GRACE",
        "CLOUD_RUN_WORKER_POOL",
        "KUBERNETES_SERVICE_HOST",
        "KRUN_INIT_FD",
        "KRUN_INTERCEPTION",
        "KRUN_LOG_FORMAT",
        "KRUN_LOG_LEVEL",
        "KRUN_LOOPBACK",
        "KRUN_MESH_NAMESPACES",
        "KRUN_MODE",
        "KRUN_OFFER",
        "KRUN_PUBLIC",
        "KRUN_READY_TIMEOUT",
        "KRUN_RUN_DIR",
        "KRUN_STATUS_PORT",
        "K_SERVICE",
        "MCON_ADDR",
        "MESH",
        "OUTBOUND_IP_RANGES_INCLUDE",
        "PORT",
        "PORT_*",
        "PROJECT_ID",
        "SSH_AUTH",
        "STARTUP_PROBE_HTTP",
        "STARTUP_PROBE_TCP",
        "TRUST_DOMAIN",
        "WORKLOAD_NAMESPACE",
        "WORKLOAD_NAME",
        "XDS_ADDR",
    }
)
SETS = frozenset(
    {
        "KRUN_APP_PROTOCOL",
        "KRUN_INIT_FD",
        "KRUN_NOTIFY_FD",
        "KRUN_OFFER",
        "KRUN_PUBLIC",
        "OUTBOUND_IP_RANGES_INCLUDE",
        "PROXY_GID",
        "PROXY_UID",
    }
)
PORTS = {
    "APP": 8080,
    "DNS": 53,
    "ENVOY_ADMIN": 15000,
    "ENVOY_CAPTURED_OUT": 15001,
    "ENVOY_MTLS": 15003,
    "ENVOY_HTTP_PROXY": 15007,
    "HBONE_H2C": 15009,
    "STATUS": 15019,
    "SSH": 15022,
    "SNI_PASSTHROUGH": 15443,
}
LOG_FIELDS = frozenset(
    {
        "at_ms",
        "count",
        "duration_ms",
        "expires",
        "fingerprint",
        "identity",
        "interception",
        "mode",
        "part",
        "pid",
        "reason",
        "signal",
        "source",
        "status",
        "step",
        "target",
    }
)
