"""What krun-iptables leaves in the kernel is what the rules of Istio's own program leave there, whatever was before."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from krun_testbed import components, istio_build, istio_iptables, istio_refusals, istio_settings, kernel_rules
from krun_testbed.istio_iptables import V4, V6, Machine
from krun_testbed.istio_named import NAMED, Asked
from krun_testbed.namespaces import Namespace

IS_LONG = bool(os.environ.get("KRUN_SOAK"))
pytestmark = [pytest.mark.istio, pytest.mark.timeout(3600 if IS_LONG else 900)]

# A failure is told as it was found: one example takes a second or more, and to make it smaller takes minutes.
PHASES = (Phase.explicit, Phase.reuse, Phase.generate)
EXAMPLES = 200 if IS_LONG else 4
TABLES = ("raw", "mangle", "nat", "filter")
ROUTED = (
    ("-m", "TPROXY", "-b", "*", "-t", "77", "-r", "99", "--dual-stack"),
    ("-m", "TPROXY", "-b", "80"),
    ("-m", "TPROXY"),
    ("-b", "*", "--dual-stack"),
)
# Those that have most kinds of rules between them.
SOME = ("tproxy", "dns-uid-gid", "ipv6-ipnets", "outbound-owner-groups", "drop-invalid", "kube-virt-interfaces")


class Pair:
    """Two machines that are alike: ours, where each rule set comes over the last, and theirs, made new for each."""

    def __init__(self, ours: Machine, theirs: Machine, *, way: str) -> None:
        self.ours = ours
        self.theirs = theirs
        self.way = way

    def resolv(self, text: str) -> None:
        self.ours.resolv(text)
        self.theirs.resolv(text)

    def apply(self, asked: Asked) -> dict[str, list[str]]:
        """By our command, on our machine: what is there then."""
        done = self.run(asked)
        assert done.returncode == 0, f"{asked}: {done.stderr}"
        return rules(self.ours)

    def run(self, asked: Asked) -> subprocess.CompletedProcess[str]:
        argv = [components.command("krun-iptables"), "istio-iptables", *asked.flags, *kernel_rules.WAYS[self.way]]
        return self.ours.run(argv, env={**asked.env, "KRUN_LOG_FORMAT": "text"})

    def expect(self, asked: Asked) -> dict[str, list[str]]:
        """Istio's text, taken by the kernel of the other machine, which then is empty again."""
        flags = ("--native-nftables=true",) if self.way == "native" else ("--native-nftables=false",)
        said = istio_iptables.ask(self.theirs, *asked.flags, *flags, env=asked.env)
        assert said.status == 0, said
        for program, text in self._texts(said.text):
            feed(self.theirs, program, text)
        found = rules(self.theirs)
        assert found
        self._clear()
        return found

    def remove(self) -> None:
        done = self.ours.run([components.command("krun-iptables"), "--remove"], env={"KRUN_LOG_FORMAT": "text"})
        assert done.returncode == 0, done.stderr

    def _texts(self, text: str) -> Iterator[tuple[str, str]]:
        if self.way == "native":
            yield "nft -f -", mended(text)
            return
        for key, lines in istio_iptables.restored(text).items():
            family, _, table = key.partition(" ")
            program = f"{'ip6tables' if family == '6' else 'iptables'}-{self.way}-restore --noflush"
            yield program, "\n".join([f"*{table}", *lines, "COMMIT", ""])

    def _clear(self) -> None:
        feed(self.theirs, "nft -f -", "flush ruleset\n")
        empty = "".join(f"*{table}\nCOMMIT\n" for table in TABLES)
        for program in ("iptables-legacy-restore", "ip6tables-legacy-restore") if self.way == "legacy" else ():
            feed(self.theirs, program, empty)


def mended(text: str) -> str:
    """Istio's text for nft without what no kernel takes: names of many interfaces, and jumps into no chain.

    The latter come of servers of DNS that are of IPv6 only, where IPv6 is off; a chain that was made for such a jump
    goes with it.
    """
    lines = text.splitlines()
    made = {_place(line) for line in lines if line.startswith("add chain ")}
    lost = {line for line in lines if " jump " in line and (_place(line)[0], line.partition(" jump ")[2]) not in made}
    kept = [line for line in lines if line not in lost]
    filled = {_place(line) for line in kept if re.match("(add|insert) rule ", line)}
    emptied = {_place(line) for line in lost} - filled
    kept = [line for line in kept if not (line.startswith("add chain ") and _place(line) in emptied)]
    return "".join(re.sub(r"(?<=ifname )(\S+)\+(?= )", r'"\1*"', line) + "\n" for line in kept)


def _place(line: str) -> tuple[str, str]:
    """The table and the chain of a line ``add chain inet TABLE CHAIN …`` or ``add rule …``."""
    table, chain = (*line.split()[3:5], "")[:2]
    return table, chain


def feed(place: Machine, program: str, text: str) -> None:
    """Run it with this on its stdin."""
    (place.folder / "text").write_text(text, encoding="utf-8")
    done = place.run(["sh", "-c", f"exec {program} <{place.folder}/text"], env={})
    assert done.returncode == 0, f"{program}: {done.stderr}{text}"


def rules(place: Machine) -> dict[str, list[str]]:
    """The rules of each chain, and of each program that sees them; the order of chains says nothing."""
    found: dict[str, list[str]] = {}
    for program, text in kernel_rules.held(Namespace(pid=place.pid)).ours.items():
        if program == "native":
            found[program] = text.splitlines()
            continue
        for line in text.splitlines():
            table, _, rest = line.partition(" ")
            chain = rest.split()[1] if rest.startswith("-A ") else rest
            lines = found.setdefault(f"{program} {table} {chain}", [])
            lines += [re.sub(" -m comment --comment ISTIO(?= )", "", rest)] if rest.startswith("-A ") else []
    return found


@pytest.fixture(scope="module", params=kernel_rules.WAYS)
def way(request: pytest.FixtureRequest) -> str:
    if os.geteuid() != 0:
        pytest.skip("rules name users that only root can be: run the tests as root")
    return str(request.param)


@pytest.fixture(scope="module")
def pair(way: str) -> Iterator[Pair]:
    with ExitStack() as running:
        ours, theirs = (running.enter_context(istio_iptables.machine(V4, V6)) for _ in range(2))
        yield Pair(ours, theirs, way=way)


def check(pair: Pair, several: list[Asked]) -> None:
    """Each over the one before it, and at the end nothing."""
    pair.resolv(several[0].resolv)
    for asked in several:
        assert pair.apply(asked) == pair.expect(asked), asked
    pair.remove()
    assert rules(pair.ours) == {}
    assert kernel_rules.held(Namespace(pid=pair.ours.pid)).routes == ""


@pytest.mark.parametrize("name", SOME)
def test_a_configuration_that_istio_names_is_in_the_kernel_as_istio_has_it(pair: Pair, name: str) -> None:
    asked = NAMED[name]
    check(pair, [Asked(flags=(*asked.flags, "--dual-stack"), env=asked.env, servers=asked.servers)])


def test_any_settings_are_in_the_kernel_as_istio_has_them_over_any_others(pair: Pair) -> None:
    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), phases=PHASES)
    @given(istio_settings.asked(most=3))
    def same(several: list[Asked]) -> None:
        check(pair, several)

    same()


def test_dns_servers_of_ipv6_alone_are_left_out_where_ipv6_is_off(pair: Pair) -> None:
    """Istio makes a chain for a jump that no kernel takes."""
    flags, env = ("-c", "eth0"), {"ISTIO_META_DNS_CAPTURE": "true"}
    check(pair, [Asked(flags=flags, env=env, addresses=("10.3.0.1/24",), servers=("2001:db8::1",))])


@pytest.mark.parametrize("words", ROUTED, ids=" ".join)
def test_routes_are_those_that_istio_makes(way: str, words: tuple[str, ...]) -> None:
    """Both programs run for real; ours marks its routes as its own."""
    found = []
    for program in (str(istio_build.binary()), components.command("krun-iptables")):
        with istio_iptables.machine(V4, V6) as place:
            argv = [program, "istio-iptables", *words, *kernel_rules.WAYS[way]]
            done = place.run(argv, env={"KRUN_LOG_FORMAT": "text"})
            assert done.returncode == 0, done.stderr
            found.append(kernel_rules.held(Namespace(pid=place.pid)).routes)
    istio, ours = found
    assert ours.replace(" proto 133", "") == istio


def test_names_that_mean_something_to_iptables_or_nft_are_names(pair: Pair) -> None:
    add_groups(pair)
    names = "eth0:1,veth+,log,tcp,1eth,a@b,a~b,a=b,a%b"
    done = pair.run(Asked(flags=("-i", "*", "-c", names, "-k", names), env={"ISTIO_OUTBOUND_OWNER_GROUPS": "log,a@b"}))
    assert done.returncode == 0, done.stderr
    pair.remove()
    assert rules(pair.ours) == {}


def add_groups(pair: Pair) -> None:
    """One is a word of nft's, the other none that it takes without quotes."""
    (pair.ours.folder / "group").write_text(f"{istio_iptables.GROUP}log:x:606:\na@b:x:607:\n", encoding="utf-8")


def test_any_text_that_is_taken_makes_rules_that_the_kernel_takes(pair: Pair) -> None:
    add_groups(pair)

    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), phases=PHASES)
    @given(istio_refusals.any_asked())
    def taken(several: list[Asked]) -> None:
        for asked in several:
            done = pair.run(asked)
            assert done.returncode in (0, 2, 78), f"{asked}: {done.stderr}"

    taken()
    pair.remove()
