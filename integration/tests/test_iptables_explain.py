"""``krun-iptables explain`` against the kernel: what it says of a connection is what becomes of it."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from krun_iptables import explain_owner, owners, reading, rules
from krun_iptables.choice import choose
from krun_iptables.explain import explain
from krun_iptables.explain_text import decision, subject
from krun_iptables.packet import LOOPBACK as LO
from krun_iptables.packet import Packet
from krun_iptables.rule import DIVERT, Rule
from krun_testbed import traffic
from krun_testbed.traffic import ANY, BY_ETH1, HERE, LOOPBACK, OUTSIDE, RANGE, SERVER, THERE, WAYS, Network

IS_LONG = bool(os.environ.get("KRUN_SOAK"))
pytestmark = [pytest.mark.netns, pytest.mark.timeout(3600 if IS_LONG else 300)]

EXAMPLES = 150 if IS_LONG else 5
FAMILIES = (4, 6)
PROXY = 1337
# The application, the proxy by its user and by its group, and somebody else who may be exempt.
OWNERS = ((1000, 1000), (PROXY, 1000), (1000, PROXY), (1400, 2000))
PORTS = (53, 80, 443, 15008)
UDP_PORTS = (53, 5353)
# Of the workload, at its second cable and at that of the virtual machine.
AT_ETH1 = {4: "10.2.0.1", 6: "2001:db8:e::1"}
VIRTUAL = {4: "10.3.0.2", 6: "2001:db8:f::2"}
PASSTHROUGH = {4: "127.0.0.6", 6: "::6"}
INSIDE_LOOPBACK = "127.1.2.3"


class Call(NamedTuple):
    """One connection: from where (``workload``, ``peer``, ``machine``), where to, and whose."""

    of: str
    protocol: str
    address: str
    port: int
    uid: int = 1000
    gid: int = 1000
    source: str = ""


class Known:
    """The machine of the tests, as far as settings ask about it."""

    def __init__(self, servers: list[str]) -> None:
        self._servers = tuple(map(ip_address, servers))

    def addresses(self) -> tuple[IPv4Address | IPv6Address, ...]:
        return (ip_address(HERE[4]), ip_address(HERE[6]))

    def servers(self) -> tuple[IPv4Address | IPv6Address, ...]:
        return self._servers

    def uid(self, name: str) -> int | None:
        return owners.uid(name)

    def gid(self, name: str) -> int | None:
        return owners.gid(name)


def calls() -> Iterator[Call]:
    """All that is tried of each rule set."""
    for family in FAMILIES:
        places = [THERE[family], OUTSIDE[family], BY_ETH1[family], HERE[family], LOOPBACK[family]]
        places += [INSIDE_LOOPBACK] if family == 4 else []
        for address, port, owner in itertools.product(places, PORTS, OWNERS):
            yield Call("workload", "tcp", address, port, *owner)
        for address, port, owner in itertools.product([THERE[family], SERVER[family]], UDP_PORTS, OWNERS):
            yield Call("workload", "udp", address, port, *owner)
        for address, owner in itertools.product([HERE[family], LOOPBACK[family]], OWNERS):
            yield Call("workload", "udp", address, 53, *owner)
        for owner in OWNERS:
            yield Call("workload", "tcp", HERE[family], 80, *owner, source=PASSTHROUGH[family])
        for address, port in itertools.product([HERE[family], AT_ETH1[family]], PORTS):
            yield Call("peer", "tcp", address, port)
        yield Call("peer", "udp", HERE[family], 53)
        for address, port in itertools.product([THERE[family], OUTSIDE[family], HERE[family]], (80, 15008)):
            yield Call("machine", "tcp", address, port)


CALLS = tuple(calls())


def packet_of(call: Call) -> tuple[Packet, bool]:
    """The call's first packet, and whether it stays in the workload."""
    family = ip_address(call.address).version
    here = call.address in (HERE[family], AT_ETH1[family])
    packet = Packet(destination=ip_address(call.address), port=call.port, protocol=call.protocol)
    if call.of != "workload":
        interface = "vm0" if call.of == "machine" else "eth1" if call.address == AT_ETH1[family] else "eth0"
        source = {"vm0": VIRTUAL, "eth1": BY_ETH1, "eth0": THERE}[interface][family]
        return packet.but(in_interface=interface, source=ip_address(source)), False
    local = here or packet.destination.is_loopback
    own = {THERE[family]: HERE, SERVER[family]: HERE, BY_ETH1[family]: AT_ETH1}.get(call.address)
    source = own[family] if own else {OUTSIDE[4]: "192.0.2.1", OUTSIDE[6]: "2001:db8:2::1"}.get(call.address)
    return packet.but(
        source=ip_address(call.source or source or call.address),
        out_interface=LO if local else "eth1" if call.address == BY_ETH1[family] else "eth0",
        uids=explain_owner.user(str(call.uid)),
        gids=explain_owner.group(str(call.gid)),
    ), local


def loses_its_answers(decided: tuple[Rule, ...], packet: Packet) -> bool:
    """Whether answers to what the workload only forwards are taken for Envoy's: so it is with Istio's TPROXY rules."""
    if packet.in_interface != "vm0" or packet.source is None:
        return False
    answer = packet.but(
        destination=packet.source, source=packet.destination, port=40000, in_interface="eth0", state="ESTABLISHED"
    )
    return any(step.rule.chain == DIVERT and not step.misfit for step in explain(decided, answer).steps)


def is_here(call: Call) -> bool:
    """Whether its destination is the workload."""
    own = {*HERE.values(), *AT_ETH1.values()}
    return call.address in own or ip_address(call.address).is_loopback


def where_it_arrives(network: Network, call: Call, source_port: int) -> tuple[str, int]:
    """By what the listener says: whose it is, and at which port."""
    caller = {"workload": network.call, "peer": network.call_in, "machine": network.call_virtual}[call.of]
    # Ids are the workload's; the kernel keeps conversations of UDP for a while, so none has the port of another.
    who = {"uid": call.uid, "gid": call.gid} if call.of == "workload" else {}
    chosen = {"source_port": source_port} if call.protocol == "udp" else {}
    answer = caller(call.address, call.port, protocol=call.protocol, source=call.source, **who, **chosen)
    return answer.get("by", answer.get("error", "nobody")), answer.get("at", 0)


@pytest.fixture(scope="module")
def wired() -> Iterator[Network]:
    """The namespaces, with a listener wherever a call may arrive."""
    with traffic.network() as made:
        here = [f"tcp:0:{ANY[family]}:{port}" for family in FAMILIES for port in (*PORTS, 8081)]
        here += [f"tcp:{PROXY}:{ANY[family]}:15001" for family in FAMILIES]
        here += [f"tproxy:{PROXY}:{ANY[family]}:15006" for family in FAMILIES]
        here += [f"{kind}:{PROXY}:{LOOPBACK[family]}:15053" for kind in ("tcp", "udp") for family in FAMILIES]
        # Answers of UDP have the address that was asked.
        here += [f"udp:0:{address[family]}:53" for address in (HERE, LOOPBACK) for family in FAMILIES]
        there = [f"tcp:0:{ANY[family]}:{port}" for family in FAMILIES for port in PORTS]
        there += [
            f"udp:0:{address[family]}:{port}"
            for address in (THERE, SERVER)
            for family in FAMILIES
            for port in UDP_PORTS
        ]
        with made.listen(*here), made.listen_there(*there):
            yield made


@pytest.fixture(scope="module")
def resolv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("resolv") / "resolv.conf"


@pytest.fixture(scope="module")
def numbers() -> Iterator[int]:
    """Source ports that nothing else takes: below those that the kernel chooses itself."""
    return itertools.cycle(range(16000, 32000))


def some(*entries: str) -> st.SearchStrategy[str]:
    return st.lists(st.sampled_from(entries), min_size=1, max_size=2, unique=True).map(",".join)


# Each may be given or not; what goes out is intercepted as a rule, or there would be little to see.
FLAGS = {
    "-i": st.sampled_from(["*", "*", f"{RANGE[4]},{RANGE[6]}", f"127.1.0.0/16,{RANGE[6]}", "0.0.0.0/1", "2000::/3"]),
    "-b": st.sampled_from(["*", "*", "80", "80,443,53"]),
    "-d": some("80", "53", "443"),
    "-x": some(f"{THERE[4]}/32", f"{THERE[6]}/128", RANGE[4], "192.0.2.0/24", "2001:db8:2::/48", "127.0.0.0/8"),
    "-q": some("80", "443", "53"),
    "-o": some("80", "443", "53"),
    # The agent's listener has to be the proxy's: rules know its answers by that.
    "-u": st.sampled_from([f"{PROXY}", f"{PROXY},1400", f"daemon,{PROXY}"]),
    "-g": some(str(PROXY), "2000", "daemon"),
    "-c": some("eth1", "lo", "vm0", "eth+"),
    "-k": some("vm0", "eth1"),
    "-m": st.sampled_from(["TPROXY", "TPROXY", "REDIRECT"]),
    "-p": st.just("8081"),
    "-e": st.just("443"),
    "-t": st.sampled_from(["77", "1339"]),
    "--redirect-dns": st.just("true"),
    "--capture-all-dns": st.just("true"),
    "--drop-invalid": st.just("true"),
}
VARIABLES = {
    "ISTIO_OUTBOUND_OWNER_GROUPS": st.sampled_from(["*", "", "1000", "2000,daemon", "1000,1337"]),
    "ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE": some("1000", "2000", "daemon"),
    "ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR": st.sampled_from(["127.0.0.1/8", "127.1.2.3/32", "127.0.0.1/32"]),
}


@st.composite
def asked(draw: st.DrawFn) -> tuple[tuple[str, ...], dict[str, str]]:
    """Flags and variables."""
    names = draw(st.sets(st.sampled_from(sorted(FLAGS))))
    flags = [f"{name}={draw(FLAGS[name])}" for name in sorted(names | draw(st.sampled_from([{"-i"}, {"-i", "-b"}])))]
    env = {name: draw(VARIABLES[name]) for name in draw(st.sets(st.sampled_from(sorted(VARIABLES)), max_size=2))}
    return tuple(flags), env


servers = st.lists(st.sampled_from([*SERVER.values(), LOOPBACK[4], HERE[4]]), max_size=3, unique=True)


@pytest.mark.parametrize("way", WAYS)
@given(asked=asked(), servers=servers)
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    print_blob=True,
    database=None,
    # Not made smaller: what failed names one call, and every further example changes the kernel's rules.
    phases=[Phase.explicit, Phase.generate],
)
def test_every_connection_arrives_where_explain_says(
    wired: Network,
    resolv: Path,
    numbers: Iterator[int],
    way: str,
    asked: tuple[tuple[str, ...], dict[str, str]],
    servers: list[str],
) -> None:
    flags, env = asked
    resolv.write_text("".join(f"nameserver {server}\n" for server in servers), encoding="ascii")
    wired.apply(way, *flags, resolv=resolv, **env)
    choice = choose(["istio-iptables", "--dual-stack", *flags], env)
    decided = rules.rules(reading.settings(choice, facts=Known(servers), environ=env))
    wrong = []
    for call in CALLS:
        packet, local = packet_of(call)
        found = explain(decided, packet, local=local)
        if found.kind == "pass" and not is_here(call) and loses_its_answers(decided, packet):
            continue
        said = ("here" if found.kind != "pass" or is_here(call) else "there", found.port)
        seen = where_it_arrives(wired, call, next(numbers))
        if said != seen:
            wrong.append(f"{subject(packet)}: {decision(found)}\n  {call}: said {said}, seen {seen}")
    assert not wrong, f"{len(wrong)} of {len(CALLS)}:\n" + "\n".join(wrong[:12])


def explained(network: Network, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return network.krun("explain", *arguments, **environment)


@pytest.mark.parametrize(
    ("address", "port", "uid"),
    [
        (THERE[4], 80, 1000),
        (THERE[6], 80, 1000),
        (THERE[4], 443, 1000),
        (THERE[6], 80, PROXY),
        (BY_ETH1[4], 80, 1000),
        (HERE[4], 80, PROXY),
        (HERE[6], 80, PROXY),
        (HERE[4], 80, 1000),
        (LOOPBACK[6], 80, 1000),
    ],
)
def test_the_command_finds_the_connections_way_by_itself(wired: Network, address: str, port: int, uid: int) -> None:
    flags = ("-i", "*", "-b", "*", "-o", "443", "-c", "eth1")
    wired.apply("nft", *flags)
    target = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
    done = explained(wired, target, "--uid", str(uid), "--gid", "1000", "--format", "json", "--dual-stack", *flags)
    assert done.returncode == 0, done.stderr
    row = json.loads(done.stdout)
    call = Call("workload", "tcp", address, port, uid=uid)
    by = "here" if row["decision"] == "redirect" or is_here(call) else "there"
    assert (by, row["arrives_at"]) == where_it_arrives(wired, call, 0)


def test_it_names_the_rule_that_decides(wired: Network) -> None:
    flags = ("--dual-stack", "-i", "*", "-o", "5432")
    done = explained(wired, f"{THERE[4]}:5432", "--uid", "1000", *flags)
    assert done.returncode == 0, done.stderr
    packet, verdict, *steps = done.stdout.splitlines()
    assert packet == f"tcp to {THERE[4]}:5432, from {HERE[4]}, goes out by eth0, uid 1000, gid 0"
    assert verdict == "leaves as it is: port 5432 is never intercepted outwards"
    assert [step for step in steps if step.startswith("=>")] == [
        "=> nat ISTIO_OUTPUT 1: -p tcp --dport 5432 -j RETURN  # port 5432 is never intercepted outwards"
    ]


def test_what_comes_in_is_explained_by_its_port(wired: Network) -> None:
    flags = ("--dual-stack", "-b", "*", "-d", "443")
    wired.apply("nft", *flags[1:])
    for port, source in itertools.product((80, 443, 15008), (THERE[4], THERE[6])):
        done = explained(wired, "--inbound", str(port), "--from", source, "--format", "json", *flags)
        assert done.returncode == 0, done.stderr
        row = json.loads(done.stdout)
        assert (row["direction"], row["interface"]) == ("inbound", "eth0")
        call = Call("peer", "tcp", row["destination"], port)
        assert ("here", row["arrives_at"]) == where_it_arrives(wired, call, 0)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("10.0.0.1",), "10.0.0.1"),
        (("2001:db8::1:80",), "2001:db8::1:80"),
        (("10.0.0.1:0",), "'0'"),
        (("10.0.0.1:65536",), "'65536'"),
        (("example.com:80",), "example.com:80"),
        (("10.0.0.1:80", "--uid", "no-such-user"), "no-such-user"),
        (("10.0.0.1:80", "--gid", "99999999999"), "99999999999"),
        (("10.0.0.1:80", "--from", "2001:db8::1"), "--from 2001:db8::1"),
        (("10.0.0.1:80", "--from", "here"), "here"),
        (("10.0.0.1:80", "--inbound", "80"), "one of them"),
        ((), "one of them"),
        (("--inbound", "80", "--uid", "0"), "--uid"),
        (("10.0.0.1:80", "-i", "10.0.0.0/40"), "10.0.0.0/40"),
    ],
)
def test_wrong_use_is_one_line_that_names_what_is_wrong(wired: Network, arguments: tuple[str, ...], told: str) -> None:
    done = explained(wired, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert told in done.stderr.splitlines()[0]
    assert "Traceback" not in done.stderr
