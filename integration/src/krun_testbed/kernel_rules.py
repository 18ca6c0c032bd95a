"""What a network namespace's kernel holds of rules and routes: krun-iptables's, and other people's beside them.

Other people's are made to be mistaken for ours: in every table, with comments that name our chains, with packet
counters that a rule loses when it is made anew, and with a routing table that is like TPROXY's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from krun_testbed.namespaces import Namespace

# The ways into the kernel, by the flags that ask for each.
WAYS: Mapping[str, tuple[str, ...]] = {
    "legacy": ("--force-iptables-binary", "legacy"),
    "nft": ("--force-iptables-binary", "nft"),
    "native": ("--native-nftables",),
}
# Settings that have little in common, all of both families.
SETTINGS: Mapping[str, tuple[str, ...]] = {
    "redirect": ("--dual-stack", "-b", "8080,9090", "-i", "10.0.0.0/8,2001:db8:a::/48", "-o", "22", "-u", "1337,5"),
    "tproxy": ("--dual-stack", "-m", "TPROXY", "-b", "*", "-i", "*", "-c", "eth1", "-k", "eth2", "--drop-invalid"),
    "dns": ("--dual-stack", "--redirect-dns", "--capture-all-dns", "-i", "*", "-x", "10.9.0.0/16,2001:db8:9::/48"),
}
ADDRESSES = ("10.3.0.1/24", "2001:db8:3::1/64")
PROGRAMS = ("iptables-legacy", "ip6tables-legacy", "iptables-nft", "ip6tables-nft")
OTHERS_TABLE = """\
*{table}
:OTHER - [0:0]
[7:420] -A OUTPUT -d {address} -m comment --comment "not -j ISTIO_OUTPUT" -j OTHER
[8:480] -A PREROUTING -d {address} -m comment --comment "ISTIO_INBOUND; -A PREROUTING -j ISTIO_REDIRECT" -j OTHER
[9:540] -A OTHER -s {address} -p tcp -m comment --comment NOT_ISTIO -j RETURN
COMMIT
"""
OTHERS_NFT = """\
table inet other {
    chain output {
        type nat hook output priority -101; policy accept;
        ip daddr 203.0.113.7 counter packets 7 bytes 420 return comment "istio-proxy-nat"
    }
    chain istio-output {
        ip6 daddr 2001:db8:113::7 counter packets 8 bytes 480 return
    }
}
table inet istio-proxy-nat-of-others {
    chain istio-output { counter packets 9 bytes 540; }
}
"""
OTHERS_ROUTES = """\
ip rule add fwmark 7 lookup 77 && ip route add local default dev lo table 77 &&
ip -6 rule add fwmark 7 lookup 77 && ip -6 route add local default dev lo table 77 &&
ip -6 address add 2001:db8:113::6/128 dev lo
"""
LOOK = "; ".join(
    [f"echo '== {name}'; {name}-save -c" for name in PROGRAMS]
    + ["echo '== native'; nft -a list ruleset inet"]
    + ["echo '== routes'; ip rule; ip -6 rule; ip route show table all; ip -6 route show table all"]
    # An address that was just made is for a moment one that may be somebody else's.
    + ["ip -o address show dev lo | sed 's/ tentative//'"]
)
CHAIN = re.compile(r":(\S+) (\S+) \[\d+:\d+\]")
COUNTERS = re.compile(r"\[\d+:\d+\] |(?<=counter )packets \d+ bytes \d+ | # handle \d+")
TPROXY_ROUTE = re.compile(r"fwmark 0x(?!7 )|^local default dev lo table (?!77 )| ::6/128 ")
BY_ADDRESS = re.compile(r" proto kernel ")  # routes that the kernel adds to an address, and late


@dataclass(frozen=True, kw_only=True)
class Held:
    """What is there. ``ours``: by the program that shows it, only those with something; without counters.

    ``untouched`` is all of ours with the marks by which a rule that was made anew is told: counters and handles.
    """

    ours: Mapping[str, str]
    untouched: str
    routes: str  # ours: those of TPROXY, and Envoy's address
    others: str  # with their counters and handles


def add_others(where: Namespace) -> None:
    """Put other people's rules and routes there, of every kind."""
    for program in PROGRAMS:
        address = "2001:db8:113::7/128" if program.startswith("ip6") else "203.0.113.7/32"
        for table in ("raw", "mangle", "nat", "filter"):
            text = OTHERS_TABLE.format(table=table, address=address)
            text = text.replace("PREROUTING", "INPUT") if table == "filter" else text
            _must(where, f"{program}-restore", "-c", "-n", stdin=text)
    _must(where, "nft", "-f", "-", stdin=OTHERS_NFT)
    _must(where, "sh", "-c", OTHERS_ROUTES)


def _must(where: Namespace, *argv: str, stdin: str = "") -> None:
    done = where.run(*argv, stdin=stdin)
    if done.returncode != 0:
        raise AssertionError(f"{argv}: {done.stderr}")


def held(where: Namespace) -> Held:
    """Look at all of it."""
    ours: dict[str, str] = {}
    untouched: list[str] = []
    routes: list[str] = []
    others: list[str] = []
    for part in where.must("sh", "-c", LOOK).split("== ")[1:]:
        name, _, text = part.partition("\n")
        if name == "routes":
            for line in text.splitlines():
                if not BY_ADDRESS.search(line):
                    (routes if TPROXY_ROUTE.search(line) else others).append(line)
            continue
        split = _native(text) if name == "native" else _saved(text)
        mine = [line for line, is_ours in split if is_ours]
        others += [f"{name}: {line}" for line, is_ours in split if not is_ours]
        untouched += mine
        if mine:
            ours[name] = "\n".join(COUNTERS.sub("", line) for line in mine)
    return Held(ours=ours, untouched="\n".join(untouched), routes="\n".join(routes), others="\n".join(others))


def _saved(text: str) -> list[tuple[str, bool]]:
    """Lines of iptables-save with their table, and whether they are ours; chains of the kernel are nobody's."""
    found: list[tuple[str, bool]] = []
    table = ""
    for line in text.splitlines():
        if line.startswith("*"):
            table = line[1:]
        elif chain := CHAIN.match(line):
            if chain[2] == "-":
                found.append((f"{table} {chain[1]}", chain[1] != "OTHER"))
        elif " -A " in line:
            found.append((f"{table} {line}", not re.search(r"\bOTHER\b|NOT_ISTIO", line)))
    return found


def _native(text: str) -> list[tuple[str, bool]]:
    return [(line, is_ours) for block, is_ours in _tables(text) for line in block]


def _tables(text: str) -> Iterator[tuple[list[str], bool]]:
    for block in re.split(r"^(?=table )", text, flags=re.M):
        if block:
            yield block.splitlines(), bool(re.match(r"table inet istio-proxy-(nat|mangle|raw) ", block))
