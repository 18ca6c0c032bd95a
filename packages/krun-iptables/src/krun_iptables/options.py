"""The options: Istio's by Istio's names, krun's own beside them."""

from __future__ import annotations

from krun_iptables.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Literal


class Option(Record):
    """One setting, and all its names. A later variable wins over one before it."""

    key: str  # its field in Settings
    flag: str = ""  # Istio's, without its dashes
    short: str = ""
    variables: tuple[str, ...] = ()
    own: str = ""  # krun's flag for it, without its dashes
    own_variable: str = ""
    metavar: str = ""  # none: a switch
    says: Literal["what", "how", "log"] = "what"  # is intercepted; it is done
    help: str = ""

    @property
    def is_switch(self) -> bool:
        """Whether it is on or off."""
        return not self.metavar


def _istio(key: str, flag: str, variables: str, metavar: str, text: str, **more: Any) -> Option:
    """One of Istio's flags (tools/istio-iptables/pkg/cmd/root.go)."""
    return Option(key=key, flag=flag, variables=tuple(variables.split()), metavar=metavar, help=text, **more)


RANGES, PORTS, NAMES, IDS, NUMBER = "RANGES", "PORTS", "NAMES", "IDS", "NUMBER"
SWITCH = ""
TAKEN = "Taken, and nothing to us."

OPTIONS = (
    # What goes out.
    _istio(
        "outbound_ranges",
        "istio-service-cidr",
        "ISTIO_SERVICE_CIDR",
        RANGES,
        "Intercept what goes to these; * is all.",
        short="i",
        own="include",
        own_variable="OUTBOUND_IP_RANGES_INCLUDE",
    ),
    _istio(
        "outbound_exclude_ranges",
        "istio-service-exclude-cidr",
        "ISTIO_SERVICE_EXCLUDE_CIDR",
        RANGES,
        "But never to these.",
        short="x",
    ),
    _istio(
        "outbound_ports",
        "istio-outbound-ports",
        "ISTIO_OUTBOUND_PORTS",
        PORTS,
        "At these ports to any address.",
        short="q",
    ),
    _istio(
        "outbound_exclude_ports",
        "istio-local-outbound-ports-exclude",
        "ISTIO_LOCAL_OUTBOUND_PORTS_EXCLUDE",
        PORTS,
        "But never at these.",
        short="o",
        own="exclude-ports",
        own_variable="OUTBOUND_PORTS_EXCLUDE",
    ),
    Option(
        key="groups", variables=("ISTIO_OUTBOUND_OWNER_GROUPS",), metavar=IDS, help="Only of these groups; * is all."
    ),
    Option(
        key="exclude_groups",
        variables=("ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE",),
        own="exempt-gid",
        metavar=IDS,
        help="But never of these groups.",
    ),
    Option(
        key="loopback",
        variables=("ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR",),
        metavar="RANGE",
        help="What is loopback, and never intercepted.",
    ),
    # What comes in.
    _istio(
        "inbound_ports",
        "istio-inbound-ports",
        "ISTIO_INBOUND_PORTS",
        PORTS,
        "Intercept what comes in at these; * is all.",
        short="b",
        own="inbound-ports",
    ),
    _istio(
        "inbound_exclude_ports",
        "istio-local-exclude-ports",
        "ISTIO_LOCAL_EXCLUDE_PORTS",
        PORTS,
        "With *, but never at these.",
        short="d",
        own="inbound-exclude-ports",
    ),
    _istio(
        "mode",
        "istio-inbound-interception-mode",
        "ISTIO_INBOUND_INTERCEPTION_MODE",
        "MODE",
        "REDIRECT or TPROXY.",
        short="m",
    ),
    _istio(
        "tproxy_mark",
        "istio-inbound-tproxy-mark",
        "ISTIO_INBOUND_TPROXY_MARK",
        NUMBER,
        "Mark of TPROXY's packets.",
        short="t",
    ),
    _istio(
        "tproxy_table",
        "istio-inbound-tproxy-route-table",
        "ISTIO_INBOUND_TPROXY_ROUTE_TABLE",
        NUMBER,
        "Their routing table.",
        short="r",
    ),
    # Both.
    _istio(
        "exclude_interfaces",
        "istio-exclude-interfaces",
        "ISTIO_EXCLUDE_INTERFACES",
        NAMES,
        "Interfaces that are left alone.",
        short="c",
    ),
    _istio(
        "virtual_interfaces",
        "kube-virt-interfaces",
        "KUBE_VIRT_INTERFACES",
        NAMES,
        "What comes from these goes out.",
        short="k",
    ),
    _istio("redirect_dns", "redirect-dns", "REDIRECT_DNS ISTIO_META_DNS_CAPTURE", SWITCH, "Lead DNS to the agent."),
    _istio("capture_all_dns", "capture-all-dns", "CAPTURE_ALL_DNS", SWITCH, "To any server, not only resolv.conf's."),
    _istio("drop_invalid", "drop-invalid", "DROP_INVALID INVALID_DROP", SWITCH, "Drop what no connection expects."),
    _istio("dual_stack", "dual-stack", "DUAL_STACK ISTIO_DUAL_STACK", SWITCH, "IPv6 beside IPv4."),
    # The proxy.
    _istio("envoy_port", "envoy-port", "", NUMBER, "Where Envoy takes what goes out.", short="p"),
    _istio(
        "inbound_capture_port",
        "inbound-capture-port",
        "INBOUND_CAPTURE_PORT",
        NUMBER,
        "Where it takes what comes in.",
        short="z",
    ),
    _istio(
        "inbound_tunnel_port",
        "inbound-tunnel-port",
        "INBOUND_TUNNEL_PORT",
        NUMBER,
        "Its tunnel, never intercepted.",
        short="e",
    ),
    _istio("proxy_uids", "proxy-uid", "PROXY_UID", IDS, "Users that are the proxy.", short="u"),
    _istio("proxy_gids", "proxy-gid", "PROXY_GID", IDS, "Groups that are the proxy.", short="g"),
    # How it is done.
    _istio("native_nftables", "native-nftables", "NATIVE_NFTABLES", SWITCH, "By nft, not iptables.", says="how"),
    _istio(
        "force_iptables_binary",
        "force-iptables-binary",
        "FORCE_IPTABLES_BINARY",
        "KIND",
        "legacy or nft; else the one that works.",
        own="iptables",
        own_variable="KRUN_IPTABLES",
        says="how",
    ),
    _istio("network_namespace", "network-namespace", "NETWORK_NAMESPACE", "PATH", "Apply them there.", says="how"),
    _istio("cni_mode", "cni-mode", "CNI_MODE", SWITCH, "A lock of the namespace's own.", says="how"),
    _istio("reconcile", "reconcile", "RECONCILE", SWITCH, "Others of ours are always replaced.", says="how"),
    _istio("force_apply", "force-apply", "FORCE_APPLY", SWITCH, "Also when they are there already.", says="how"),
    _istio("skip_rule_apply", "skip-rule-apply", "SKIP_RULE_APPLY", SWITCH, "Apply nothing.", says="how"),
    _istio(
        "run_validation", "run-validation", "RUN_VALIDATION", SWITCH, "Then prove them by traffic (126).", says="how"
    ),
    _istio("probe_port", "iptables-probe-port", "IPTABLES_PROBE_PORT", NUMBER, "Port of that proof.", says="how"),
    _istio("probe_timeout", "probe-timeout", "PROBE_TIMEOUT", "TIME", "Limit of that proof, as 5s.", says="how"),
    _istio("dry_run", "dry-run", "DRY_RUN", SWITCH, "Print them, and apply nothing.", short="n", says="how"),
    _istio("cleanup_only", "cleanup-only", "CLEANUP_ONLY", SWITCH, "Take all of ours away.", says="how"),
    Option(key="remove", own="remove", help="The same.", says="how"),
    Option(key="show_settings", own="show-settings", help="Print what was decided, as JSON.", says="how"),
    # Its own lines.
    Option(
        key="log_level",
        own="log-level",
        own_variable="KRUN_LOG_LEVEL",
        metavar="LEVEL",
        help="debug, info, warning or error.",
        says="log",
    ),
    Option(
        key="log_format",
        own="log-format",
        own_variable="KRUN_LOG_FORMAT",
        metavar="FORMAT",
        help="text or json; auto is JSON in a container.",
        says="log",
    ),
    Option(key="log_levels", flag="log_output_level", metavar="LEVELS", help="Istio's way to say a level.", says="log"),
    Option(key="log_json", flag="log_as_json", help="Istio's way to say json.", says="log"),
    # Of all commands of pilot-agent: taken, so that a container's arguments need no change, and nothing to us.
    *(
        Option(key=name, flag=name, metavar="TEXT", help=TAKEN, says="log")
        for name in ("log_target", "log_caller", "log_stacktrace_level", "vklog")
    ),
)
BY_FLAG = {name: option for option in OPTIONS for name in (option.flag, option.own) if name}
BY_SHORT = {option.short: option for option in OPTIONS if option.short}
