"""Rules to the text that ``nft -f`` takes: Istio's native nftables layout, in one transaction.

The same rules as for iptables, as Istio decides the same twice (tools/istio-nftables/pkg/capture/run.go): tables of
family inet, in which a rule that is the same for IPv4 and IPv6 stands once. The order of tables and chains is Istio's,
and so are the words of a rule and their order.
"""

from __future__ import annotations

from krun_iptables.rule import BUILT_IN, OUT, OUT_DNS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from krun_iptables.rule import Match, Rule

FAMILY = "inet"
# Tables by iptables' names, in Istio's order; for each its base chains, and then the order of all chains.
PRIORITY = {"nat": -100, "mangle": -150, "raw": -300}
CHAINS = {
    "nat": ("prerouting", "output", "istio-inbound", "istio-redirect", "istio-in-redirect", "istio-output")
    + ("istio-output-dns",),
    "mangle": ("prerouting", "output", "istio-divert", "istio-tproxy", "istio-inbound", "istio-drop"),
    "raw": ("prerouting", "output", "istio-inbound", "istio-output-dns"),
}
TYPES = {("nat", "prerouting"): "nat", ("nat", "output"): "nat", ("mangle", "output"): "route"}  # else filter


def table_name(table: str) -> str:
    """Istio's name of the table that iptables calls so."""
    return f"istio-proxy-{table}"


TABLES = tuple(table_name(table) for table in CHAINS)


def chain_name(chain: str) -> str:
    """Istio's nftables name of a chain: ``ISTIO_IN_REDIRECT`` is ``istio-in-redirect``."""
    return chain.lower().replace("_", "-")


def render(rules: Sequence[Rule]) -> str:
    """The transaction that fills our tables where none of ours is; the reason of each rule is a comment above it."""
    merged = once(rules)
    return "".join(f"{line}\n" for table in CHAINS for line in _table(table, [r for r in merged if r.table == table]))


def replace(rules: Sequence[Rule]) -> str:
    """The transaction that leaves exactly these rules of ours, whatever was there."""
    return clear(TABLES) + render(rules)


def create(rules: Sequence[Rule]) -> str:
    """The transaction that fills our tables, and does nothing when one of them is there already.

    Where none is, it is half as long as ``replace``: the kernel keeps the caller waiting for tables that go.
    """
    lines = render(rules).splitlines(keepends=True)
    return "".join(f"create{line.removeprefix('add')}" if line.startswith("add table ") else line for line in lines)


def clear(tables: Iterable[str]) -> str:
    """The transaction that takes these tables away, whether they are there or not."""
    return "".join(f"add table {FAMILY} {table}\ndelete table {FAMILY} {table}\n" for table in tables)


def once(rules: Sequence[Rule]) -> tuple[Rule, ...]:
    """The rules without those of IPv6 that say the same as one of IPv4: one of family inet is for both.

    The same rule may be there twice, when a list of the settings has an entry twice; then it stays twice.
    """
    seen: dict[tuple[object, ...], int] = {}
    for rule in rules:
        if rule.family == 4:
            seen[_words_of(rule)] = seen.get(_words_of(rule), 0) + 1
    kept: list[Rule] = []
    for rule in rules:
        if rule.family == 6 and seen.get(_words_of(rule), 0):
            seen[_words_of(rule)] -= 1
        else:
            kept.append(rule)
    return tuple(kept)


def _words_of(rule: Rule) -> tuple[object, ...]:
    """What makes two rules the same but for their family."""
    tproxy = rule.family if rule.target.kind == "tproxy" else 0  # has the family in its words
    return (rule.table, rule.chain, rule.match, rule.target, rule.position, tproxy)


def _table(table: str, rules: Sequence[Rule]) -> Iterator[str]:
    if not rules:
        return
    name = f"{FAMILY} {table_name(table)}"
    yield f"add table {name}"
    yield f"flush table {name}"
    # A chain that only jumps lead to is there too, empty: Istio leaves it out, and nft then refuses all of it.
    used = {chain_name(chain) for rule in rules for chain in (rule.chain, rule.target.chain)}
    for chain in CHAINS[table]:
        if chain in used:
            words_of_hook = " ".join(hook(table, chain))
            yield f"add chain {name} {chain}" + (f" {{ {words_of_hook} ; }}" if words_of_hook else "")
    filled: dict[str, int] = {}
    for rule in rules:
        chain = chain_name(rule.chain)
        count = filled.get(chain, 0)
        filled[chain] = count + 1
        yield f"# {rule.reason}"
        # nft has no place 0 in an empty chain, and none behind the last rule.
        if 0 < rule.position <= count:
            yield f"insert rule {name} {chain} index {rule.position - 1} {' '.join(words(rule))}"
        else:
            yield f"add rule {name} {chain} {' '.join(words(rule))}"


def hook(table: str, chain: str) -> tuple[str, ...]:
    """Where the kernel calls a chain, in nft's words; none for a chain that only rules lead to."""
    if chain.upper() not in BUILT_IN:
        return ()
    return ("type", TYPES.get((table, chain), "filter"), "hook", chain, "priority", str(PRIORITY[table]))


def words(rule: Rule) -> tuple[str, ...]:
    """One rule in nft's words, in Istio's order."""
    return (*_matched(rule), *_verdict(rule))


def _matched(rule: Rule) -> Iterator[str]:
    match = rule.match
    if match.in_interface:
        yield from ("iifname", _name(match.in_interface))
    if match.out_interface:
        yield from ("oifname", _name(match.out_interface))
    if _says_protocol(rule):
        yield from ("meta", "l4proto", "tcp")
    if match.states:
        yield from ("ct", "state", ",".join(state.lower() for state in match.states))
    if rule.table == "raw":  # there the port comes first
        yield from (*_ports(match), *_addresses(rule))
    else:
        yield from (*_addresses(rule), *_ports(match))
    yield from _owner(rule)
    if match.mark is not None:
        yield from ("mark", str(match.mark))
    if match.not_mark is not None:
        yield from ("mark", "!=", str(match.not_mark))
    if match.connection_mark is not None:
        yield from ("ct", "mark", str(match.connection_mark))


def _says_protocol(rule: Rule) -> bool:
    """Whether the protocol has words of its own. Istio leaves it to the port's where that is enough, but not always."""
    match = rule.match
    if match.states == ("INVALID",):
        return True  # iptables' rule is for any protocol, nft's is not
    if match.protocol != "tcp":
        return False
    by_port = rule.chain == OUT and match.port and not match.out_interface
    by_server = rule.chain == OUT_DNS and match.destination is not None
    return not (by_port or by_server)


def _addresses(rule: Rule) -> Iterator[str]:
    match, ip = rule.match, "ip" if rule.family == 4 else "ip6"
    if match.source is not None:
        yield from (ip, "saddr", str(match.source))
    if match.destination is not None:
        yield from (ip, "daddr", str(match.destination))
    if match.not_destination is not None:
        yield from (ip, "daddr", "!=", str(match.not_destination))


def _ports(match: Match) -> Iterator[str]:
    if match.source_port:
        yield from (match.protocol, "sport", str(match.source_port))
    if match.port:
        yield from (match.protocol, "dport", str(match.port))
    if len(match.not_ports) == 1:
        yield from (match.protocol, "dport", "!=", str(match.not_ports[0]))
    elif match.not_ports:
        yield from (match.protocol, "dport", "!=", "{", ", ".join(str(port) for port in match.not_ports), "}")


def _owner(rule: Rule) -> Iterator[str]:
    match = rule.match
    if rule.table == "raw" and (match.uid or match.gid):
        yield "meta"  # which nft does not need
    if match.uid:
        yield from ("skuid", _name(match.uid))
    if match.not_uid:
        yield from ("skuid", "!=", _name(match.not_uid))
    if match.gid:
        yield from ("skgid", _name(match.gid))
    for gid in match.not_gids:
        yield from ("skgid", "!=", _name(gid))


def _name(word: str) -> str:
    """A number as it is; a name in quotes, as nft has words of its own. iptables' ``eth+`` is nft's ``eth*``."""
    if word.isdecimal() or word == "lo":
        return word
    return f'"{word[:-1]}*"' if word.endswith("+") else f'"{word}"'


def _verdict(rule: Rule) -> tuple[str, ...]:
    target = rule.target
    match target.kind:
        case "jump":
            return ("counter", "jump", chain_name(target.chain))
        case "redirect":
            return ("counter", "redirect", "to", f":{target.port}")
        case "tproxy":
            ip = "ip" if rule.family == 4 else "ip6"
            return ("tproxy", ip, "to", f":{target.port}", "meta", "mark", "set", str(target.mark), "counter", "accept")
        case "mark":
            return ("counter", "meta", "mark", "set", str(target.mark))
        case "save":
            return ("counter", "ct", "mark", "set", "mark")
        case "restore":
            return ("counter", "meta", "mark", "set", "ct", "mark")
        case "zone":
            return ("counter", "ct", "zone", "set", str(target.zone))
        case _:  # return, accept, drop
            return ("counter", target.kind)
