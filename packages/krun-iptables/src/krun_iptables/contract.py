"""What krun-iptables shares with its siblings: variables, ports, log fields (docs/environment.md, docs/process.md)."""

from __future__ import annotations

READS = frozenset(
    {
        "CAPTURE_ALL_DNS",
        "CLEANUP_ONLY",
        "CLOUD_RUN_JOB",
        "CLOUD_RUN_WORKER_POOL",
        "CNI_MODE",
        "DROP_INVALID",
        "DRY_RUN",
        "DRY_RUN_FILE_PATH",
        "DUAL_STACK",
        "ENVOY_USER",
        "FORCE_APPLY",
        "FORCE_IPTABLES_BINARY",
        "INBOUND_CAPTURE_PORT",
        "INBOUND_TUNNEL_PORT",
        "INVALID_DROP",
        "IPTABLES_PROBE_PORT",
        "ISTIO_DUAL_STACK",
        "ISTIO_EXCLUDE_INTERFACES",
        "ISTIO_INBOUND_INTERCEPTION_MODE",
        "ISTIO_INBOUND_PORTS",
        "ISTIO_INBOUND_TPROXY_MARK",
        "ISTIO_INBOUND_TPROXY_ROUTE_TABLE",
        "ISTIO_LOCAL_EXCLUDE_PORTS",
        "ISTIO_LOCAL_OUTBOUND_PORTS_EXCLUDE",
        "ISTIO_META_DNS_CAPTURE",
        "ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR",
        "ISTIO_OUTBOUND_OWNER_GROUPS",
        "ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE",
        "ISTIO_OUTBOUND_PORTS",
        "ISTIO_SERVICE_CIDR",
        "ISTIO_SERVICE_EXCLUDE_CIDR",
        "KRUN_INIT_FD",
        "KRUN_IPTABLES",
        "KRUN_LOG_FORMAT",
        "KRUN_LOG_LEVEL",
        "KUBERNETES_SERVICE_HOST",
        "KUBE_VIRT_INTERFACES",
        "K_SERVICE",
        "NATIVE_NFTABLES",
        "NETWORK_NAMESPACE",
        "OUTBOUND_IP_RANGES_INCLUDE",
        "OUTBOUND_PORTS_EXCLUDE",
        "PROBE_TIMEOUT",
        "PROXY_GID",
        "PROXY_UID",
        "RECONCILE",
        "REDIRECT_DNS",
        "RUN_VALIDATION",
        "SKIP_RULE_APPLY",
    }
)
SETS: frozenset[str] = frozenset()
PORTS: dict[str, int] = {"ENVOY_CAPTURED_OUT": 15001, "ENVOY_CAPTURED_IN": 15006, "HBONE_H2C": 15009, "STATUS": 15019}
# Istio's own, which nobody of ours listens on: its tunnel, the agent's status, Envoy's health and statistics.
FOREIGN_TUNNEL = 15008
FOREIGN_STATUS = (15020, 15021, 15090)
# The agent's DNS server; and what Istio's validation dials, where nobody listens at all.
FOREIGN_DNS = 15053
FOREIGN_PROBE = 15002
FOREIGN_PORTS = (FOREIGN_TUNNEL, *FOREIGN_STATUS, FOREIGN_DNS, FOREIGN_PROBE)
LOG_FIELDS: frozenset[str] = frozenset({"count", "reason", "source"})
