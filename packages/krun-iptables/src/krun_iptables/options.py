"""The options: Istio's by Istio's names, krun's own beside them; and how they are written on a command line.

Flags are read as pflag reads them, which Istio's tool is made with; click is there for help and completion.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from krun_iptables.errors import Exit, Failure
from krun_iptables.record import Record

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, Literal


class WrongUse(Failure):
    """The command line is not one of ours."""

    exit_code = Exit.USAGE


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


def _istio(flag: str, key: str, metavar: str, text: str, **more: Any) -> Option:
    """One whose variable is the flag in capitals (Istio's pkg/flag)."""
    variables = (flag.upper().replace("-", "_"),)
    return Option(**{"key": key, "flag": flag, "metavar": metavar, "help": text, "variables": variables, **more})


_ALSO = "REDIRECT_DNS ISTIO_META_DNS_CAPTURE", "DROP_INVALID INVALID_DROP", "DUAL_STACK ISTIO_DUAL_STACK"
_DNS, _INVALID, _DUAL = (tuple(names.split()) for names in _ALSO)
RANGES, PORTS, NAMES, IDS, PORT, NUMBER = "RANGES", "PORTS", "NAMES", "IDS", "PORT", "NUMBER"
SWITCH = ""
TAKEN = "Taken, and nothing to us."

OPTIONS = (
    # What goes out.
    _istio(
        "istio-service-cidr",
        "outbound_ranges",
        RANGES,
        "Intercept what goes to these; * is all.",
        short="i",
        own="include",
        own_variable="OUTBOUND_IP_RANGES_INCLUDE",
    ),
    _istio("istio-service-exclude-cidr", "outbound_exclude_ranges", RANGES, "But never to these.", short="x"),
    _istio("istio-outbound-ports", "outbound_ports", PORTS, "At these ports to any address.", short="q"),
    _istio(
        "istio-local-outbound-ports-exclude",
        "outbound_exclude_ports",
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
        "istio-inbound-ports",
        "inbound_ports",
        PORTS,
        "Intercept what comes in at these; * is all.",
        short="b",
        own="inbound-ports",
    ),
    _istio(
        "istio-local-exclude-ports",
        "inbound_exclude_ports",
        PORTS,
        "With *, but never at these.",
        short="d",
        own="inbound-exclude-ports",
    ),
    _istio("istio-inbound-interception-mode", "mode", "MODE", "REDIRECT or TPROXY.", short="m"),
    _istio("istio-inbound-tproxy-mark", "tproxy_mark", NUMBER, "Mark of TPROXY's packets.", short="t"),
    _istio("istio-inbound-tproxy-route-table", "tproxy_table", NUMBER, "Their routing table.", short="r"),
    # Both.
    _istio("istio-exclude-interfaces", "exclude_interfaces", NAMES, "Interfaces that are left alone.", short="c"),
    _istio("kube-virt-interfaces", "virtual_interfaces", NAMES, "What comes from these goes out.", short="k"),
    _istio("redirect-dns", "redirect_dns", SWITCH, "Lead DNS to the agent.", variables=_DNS),
    _istio("capture-all-dns", "capture_all_dns", SWITCH, "To any server, not only resolv.conf's."),
    _istio("drop-invalid", "drop_invalid", SWITCH, "Drop what no connection expects.", variables=_INVALID),
    _istio("dual-stack", "dual_stack", SWITCH, "IPv6 beside IPv4.", variables=_DUAL),
    # The proxy.
    _istio("envoy-port", "envoy_port", PORT, "Where Envoy takes what goes out.", short="p", variables=()),
    _istio("inbound-capture-port", "inbound_capture_port", PORT, "Where it takes what comes in.", short="z"),
    _istio("inbound-tunnel-port", "inbound_tunnel_port", PORT, "Its tunnel, never intercepted.", short="e"),
    _istio("proxy-uid", "proxy_uids", IDS, "Users that are the proxy.", short="u"),
    _istio("proxy-gid", "proxy_gids", IDS, "Groups that are the proxy.", short="g"),
    # How it is done.
    _istio("native-nftables", "native_nftables", SWITCH, "By nft, not iptables.", says="how"),
    _istio(
        "force-iptables-binary",
        "force_iptables_binary",
        "KIND",
        "legacy or nft; else the one that works.",
        own="iptables",
        own_variable="KRUN_IPTABLES",
        says="how",
    ),
    _istio("network-namespace", "network_namespace", "PATH", "Apply them there.", says="how"),
    _istio("cni-mode", "cni_mode", SWITCH, "A lock of the namespace's own.", says="how"),
    _istio("reconcile", "reconcile", SWITCH, "Others of ours are always replaced.", says="how"),
    _istio("force-apply", "force_apply", SWITCH, "Also when they are there already.", says="how"),
    _istio("skip-rule-apply", "skip_rule_apply", SWITCH, "Apply nothing.", says="how"),
    _istio("run-validation", "run_validation", SWITCH, "Then prove them by traffic (126).", says="how"),
    _istio("iptables-probe-port", "probe_port", PORT, "Port of that proof.", says="how"),
    _istio("probe-timeout", "probe_timeout", "TIME", "Limit of that proof, as 5s.", says="how"),
    _istio("dry-run", "dry_run", SWITCH, "Print them, and apply nothing.", short="n", says="how"),
    _istio("cleanup-only", "cleanup_only", SWITCH, "Take all of ours away.", says="how"),
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


class Given(Record):
    """A text that was given for a setting, and by which name: ``--flag``, ``-f`` or ``VARIABLE``."""

    key: str
    name: str
    text: str
    is_own: bool = False  # by krun's name for it, not Istio's

    @property
    def is_flag(self) -> bool:
        """Whether it stood on the command line."""
        return self.name.startswith("-")


def flags(arguments: Sequence[str]) -> tuple[Given, ...]:
    """Read a command line, in order.

    Raises:
        WrongUse: a flag is none of ours, lacks its value, or a word is no flag.
    """
    found: list[Given] = []
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if word == "--" and not rest:
            break
        if word.startswith("--"):
            found.append(_long(word, rest))
        elif word.startswith("-") and word != "-":
            found += _short(word, rest)
        else:
            hint = f"a switch takes its value so: {found[-1].name}={word}" if found else "see 'krun-iptables --help'"
            raise WrongUse(f"unexpected argument {word!r}", hint=hint)
    return tuple(found)


def _long(word: str, rest: list[str]) -> Given:
    name, equals, text = word.partition("=")
    option = BY_FLAG.get(name.removeprefix("--"))
    if option is None:
        raise WrongUse(f"no such option: {shown(name)}", hint="see 'krun-iptables --help'")
    if not equals:
        text = "true" if option.is_switch else _next(name, rest)
    return Given(key=option.key, name=name, text=text, is_own=name != f"--{option.flag}")


def _short(word: str, rest: list[str]) -> list[Given]:
    """One letter or several: ``-n``, ``-p 1``, ``-p1``, ``-p=1``, ``-np 1``."""
    found: list[Given] = []
    letters = word[1:]
    while letters:
        letter, letters = letters[0], letters[1:]
        option = BY_SHORT.get(letter)
        name = f"-{letter}"
        if option is None:
            raise WrongUse(f"no such option: {shown(name)}", hint="see 'krun-iptables --help'")
        if letters.startswith("="):
            text, letters = letters[1:], ""
        elif option.is_switch:
            text = "true"
        else:
            text, letters = letters or _next(name, rest), ""
        found.append(Given(key=option.key, name=name, text=text))
    return found


def shown(word: str) -> str:
    """On one line."""
    return word if word.isprintable() else repr(word)


def _next(name: str, rest: list[str]) -> str:
    if not rest:
        raise WrongUse(f"{name} needs a value", hint="see 'krun-iptables --help'")
    return rest.pop(0)


def split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Part the flags that say what is intercepted from all other words."""
    mine: list[str] = []
    others: list[str] = []
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        name, equals, _ = word.partition("=")
        is_long = word.startswith("--")
        option = BY_FLAG.get(name[2:]) if is_long else BY_SHORT.get(name[1:2]) if word.startswith("-") else None
        if option is None or option.says != "what":
            others.append(word)
            continue
        mine.append(word)
        if not (equals or option.is_switch or (not is_long and len(word) > len("-p"))) and rest:
            mine.append(rest.pop(0))
    return mine, others
