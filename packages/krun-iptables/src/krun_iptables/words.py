"""A rule in iptables' words, in the order in which Istio's own tool writes them (capture/run.go)."""

from __future__ import annotations

from krun_iptables import rule as r

TYPE_CHECKING = False
if TYPE_CHECKING:
    from krun_iptables.network import Network
    from krun_iptables.rule import Match, Rule, Target

# A rule of ours in a chain of the kernel that leads into none of our chains says by this comment whose it is.
MARK = "ISTIO"
COMMENT = f"-m comment --comment {MARK}"

# Istio's order differs by what a rule is for. iptables takes any.
USUAL = ("interfaces", "source", "destination", "protocol", "ports", "states", "marks", "owner")
DNS = ("protocol", "ports", "source", "destination", "owner")
MANGLED = ("destination", "protocol", "ports", "source", "interfaces", "states", "marks", "owner")


def rule_text(rule: Rule) -> str:
    """Istio's words for it: ``-A CHAIN …``, or ``-I CHAIN POSITION …``."""
    where = f"-I {rule.chain} {rule.position}" if rule.position else f"-A {rule.chain}"
    return " ".join([where, *_matches(rule), "-j", target_words(rule.target, rule.match)])


def marked_text(rule: Rule) -> str:
    """What is found again without memory: the same, with our comment where nothing else says that it is ours."""
    head, _, target = rule_text(rule).rpartition(" -j ")
    return f"{head} {COMMENT} -j {target}" if is_loose(rule) else f"{head} -j {target}"


def is_loose(rule: Rule) -> bool:
    """Tell whether it stands in a chain of the kernel and leads into none of ours."""
    return rule.chain in r.BUILT_IN and rule.target.chain not in r.CHAINS


def _matches(rule: Rule) -> list[str]:
    parts = _parts(rule.match)
    order = MANGLED if rule.table == "mangle" else DNS if _is_dns(rule) else USUAL
    return [part for name in order for part in parts[name]]


def _is_dns(rule: Rule) -> bool:
    return rule.table == "raw" or rule.chain == r.OUT_DNS


def _parts(match: Match) -> dict[str, list[str]]:
    return {
        "interfaces": _given("-i", match.in_interface) + _given("-o", match.out_interface),
        "source": _given("-s", match.source),
        "destination": _given("-d", match.destination) + _given("! -d", match.not_destination),
        "protocol": _given("-p", match.protocol),
        "ports": _ports(match),
        "states": _given("-m conntrack --ctstate", ",".join(match.states)),
        "marks": _marks(match),
        "owner": _owner(match),
    }


def _given(option: str, value: str | Network | None) -> list[str]:
    return [f"{option} {value}"] if value else []


def _ports(match: Match) -> list[str]:
    found = [f"--sport {match.source_port}"] if match.source_port else []
    found += [f"--dport {match.port}"] if match.port else []
    if len(match.not_ports) == 1:
        return [*found, f"! --dport {match.not_ports[0]}"]
    if match.not_ports:
        return [*found, f"-m multiport ! --dports {','.join(map(str, match.not_ports))}"]
    return found


def _marks(match: Match) -> list[str]:
    found = [] if match.mark is None else [f"-m mark --mark {match.mark}"]
    found += [] if match.not_mark is None else [f"-m mark ! --mark {match.not_mark}"]
    return found + ([] if match.connection_mark is None else [f"-m connmark --mark {match.connection_mark}"])


def _owner(match: Match) -> list[str]:
    found = _given("-m owner --uid-owner", match.uid) + _given("-m owner ! --uid-owner", match.not_uid)
    found += _given("-m owner --gid-owner", match.gid)
    return found + [f"-m owner ! --gid-owner {gid}" for gid in match.not_gids]


def target_words(target: Target, match: Match) -> str:
    """What follows ``-j``."""
    match target.kind:
        case "jump":
            return target.chain
        case "redirect":
            # Istio writes one of the two so; iptables takes it as the other one.
            is_dns = match.protocol == "udp"
            return f"REDIRECT {'--to-port' if is_dns else '--to-ports'} {target.port}"
        case "tproxy":
            return f"TPROXY --tproxy-mark {target.mark}/0xffffffff --on-port {target.port}"
        case "mark":
            return f"MARK --set-mark {target.mark}"
        case "save" | "restore":
            return f"CONNMARK --{target.kind}-mark"
        case "zone":
            return f"CT --zone {target.zone}"
        case kind:
            return kind.upper()
