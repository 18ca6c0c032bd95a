"""``krun-iptables verify``: interception that works is proven, and whatever does not work is found."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from krun_testbed import components, processes, traffic
from krun_testbed.traffic import ANY, RANGE, SERVER, THERE, WAYS, Network

pytestmark = pytest.mark.netns

FAMILIES = (4, 6)
EVERYTHING = ("--dual-stack", "-i", "*", "-b", "*")
FINER = ("-o", "5432", "-x", f"{THERE[4]}/32,{THERE[6]}/128", "-q", "99", "-u", "1337,1400", "-g", "1338")


@pytest.fixture(scope="module")
def wired() -> Iterator[Network]:
    with traffic.network() as made:
        yield made


@pytest.fixture
def network(wired: Network) -> Iterator[Network]:
    """The namespaces without rules; nobody listens in them."""
    yield wired
    done = wired.krun("--remove")
    assert done.returncode == 0, done.stderr


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def resolv(tmp_path: Path) -> Path:
    path = tmp_path / "resolv.conf"
    path.write_text("".join(f"nameserver {SERVER[family]}\n" for family in FAMILIES), encoding="ascii")
    return path


def outcomes(done: subprocess.CompletedProcess[str]) -> dict[str, str]:
    """The outcome of each check, by its name without what was dialled; the worst of those of one name."""
    rank = ("ok", "unknown", "fail")
    found: dict[str, str] = {}
    for line in done.stdout.splitlines():
        match = re.match(r"(ok|fail|unknown) +(.*?)(?: \((?:tcp|udp) .*?\))?: ", line)
        assert match, line
        found[match[2]] = max(match[1], found.get(match[2], "ok"), key=rank.index)
    return found


def failed(done: subprocess.CompletedProcess[str]) -> set[str]:
    return {name for name, outcome in outcomes(done).items() if outcome == "fail"}


def as_user(network: Network, uid: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Verify as another user than root; one that may look into any folder, as a checkout may lie in root's."""
    looks = ("--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search")
    user = ("setpriv", "--reuid", str(uid), "--regid", str(uid), "--clear-groups", *looks)
    command = components.command("krun-iptables")
    return network.workload.run(*user, command, "verify", *arguments, env=processes.environment())


def test_interception_that_works_is_proven_in_all_its_parts(network: Network, way: str) -> None:
    network.apply(way, *EVERYTHING[1:], *FINER)
    done = network.krun("verify", *EVERYTHING, *FINER)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    found = outcomes(done)
    for family in FAMILIES:
        proven = (
            f"outbound IPv{family} anywhere",
            f"outbound IPv{family} port 99",
            f"inbound IPv{family}",
            f"excluded port 5432 IPv{family}",
            f"excluded range {THERE[family]}/{32 if family == 4 else 128} IPv{family}",
            f"exempt owner IPv{family}",
        )
        assert {found[name] for name in proven} == {"ok"}
        assert found[f"inbound IPv{family} from elsewhere"] == "unknown"
    assert done.stdout.count("exempt owner IPv4") == 3


def test_without_rules_every_proof_of_interception_fails(network: Network) -> None:
    done = network.krun("verify", *EVERYTHING)
    assert done.returncode == 126
    assert failed(done) == {"outbound IPv4 anywhere", "outbound IPv6 anywhere", "inbound IPv4", "inbound IPv6"}
    error, hint = done.stderr.splitlines()
    assert re.fullmatch(r"krun-iptables: error: 4 of \d+ proofs failed", error)
    assert hint.startswith("hint: are the rules in force")


def test_a_family_or_a_range_that_is_missing_is_found(network: Network, way: str) -> None:
    network.apply(way, "-i", RANGE[4])
    assert failed(network.krun("verify", "--dual-stack", "-i", f"{RANGE[4]},{RANGE[6]}")) == {
        f"outbound IPv6 {RANGE[6]}"
    }


def test_what_is_intercepted_and_must_not_be_is_found(network: Network, way: str) -> None:
    network.apply(way, "-i", "*", "-u", "5", "-g", "5")
    done = network.krun("verify", "--dual-stack", "-i", "*", "-o", "5432", "-u", "1337", "-g", "5")
    assert done.returncode == 126
    for family in FAMILIES:
        assert {f"exempt owner IPv{family}", f"excluded port 5432 IPv{family}"} <= failed(done)
    assert "is led to port 15001, and must not be: port 5432 is never intercepted outwards" in done.stdout


def test_ports_that_envoy_has_are_no_false_alarm(network: Network, way: str) -> None:
    network.apply(way, *EVERYTHING[1:], *FINER)
    with network.listen(*(f"tcp:1337:{ANY[family]}:{port}" for family in FAMILIES for port in (15001, 15006))):
        done = network.krun("verify", *EVERYTHING, *FINER)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    for family in FAMILIES:
        assert f"outbound IPv{family} anywhere" in outcomes(done)
    assert done.stdout.count("which another program has") == 6
    assert failed(done) == set()


def test_where_envoy_has_the_ports_missing_rules_are_found(network: Network) -> None:
    with network.listen(*(f"tcp:1337:{ANY[family]}:{port}" for family in FAMILIES for port in (15001, 15006))):
        done = network.krun("verify", *EVERYTHING)
    assert (done.returncode, len(failed(done))) == (126, 4)


def test_dns_is_proven_by_udp_and_tcp_with_its_answers(network: Network, way: str, resolv: Path) -> None:
    network.apply(way, "-i", "*", "--redirect-dns", resolv=resolv)
    done = network.krun("verify", "--dual-stack", "-i", "*", "--redirect-dns", resolv=resolv)
    assert done.returncode == 0, done.stdout + done.stderr
    for family in FAMILIES:
        for protocol in ("udp", "tcp"):
            assert f"DNS IPv{family} ({protocol} {SERVER[family]} port 53" in done.stdout
        assert outcomes(done)[f"DNS IPv{family}"] == "ok"
        assert outcomes(done)[f"the agent's own DNS IPv{family}"] == "ok"


def test_dns_that_is_not_captured_is_found(network: Network, resolv: Path) -> None:
    network.apply("nft", "-i", "*")
    done = network.krun("verify", "--dual-stack", "-i", "*", "--redirect-dns", resolv=resolv)
    assert failed(done) == {"DNS IPv4", "DNS IPv6"}


def test_answers_of_dns_that_do_not_come_back_are_found(network: Network, resolv: Path) -> None:
    network.apply("nft", "-i", "*", "--redirect-dns", resolv=resolv)
    # The agent's answer is taken for a conversation of its own when its rule is gone.
    for owner in ("--uid-owner", "--gid-owner"):
        rule = ("-p", "udp", "--sport", "15053", "-m", "owner", owner, "1337", "-j", "CT", "--zone", "2")
        network.workload.must("iptables-nft", "-t", "raw", "-D", "ISTIO_OUTPUT_DNS", *rule)
    done = network.krun("verify", "--dual-stack", "-i", "*", "--redirect-dns", "--timeout", "1", resolv=resolv)
    assert failed(done) == {"DNS IPv4"}
    assert "arrived at port 15053, but no answer came back" in done.stdout


def test_a_plain_user_proves_what_goes_out_and_says_what_it_cannot(network: Network) -> None:
    network.apply("nft", *EVERYTHING[1:])
    done = as_user(network, 65533, *EVERYTHING)
    assert done.returncode == 0, done.stdout + done.stderr
    found = outcomes(done)
    for family in FAMILIES:
        assert (found[f"outbound IPv{family} anywhere"], found[f"inbound IPv{family}"]) == ("ok", "unknown")
    assert "only root, or the proxy itself, can call as the proxy" in done.stdout


def test_a_plain_user_proves_that_questions_of_dns_arrive(network: Network) -> None:
    # Its own answers are none of the agent's: that they do not come back is no failure.
    flags = ("--dual-stack", "--redirect-dns", "--capture-all-dns")
    network.apply("nft", *flags[1:])
    done = as_user(network, 65533, *flags)
    assert done.returncode == 0, done.stdout + done.stderr
    assert {outcomes(done)[f"DNS IPv{family}"] for family in FAMILIES} == {"ok"}


def test_root_that_may_not_be_others_proves_what_it_can(network: Network) -> None:
    flags = ("--dual-stack", "-i", "*", "--redirect-dns", "--capture-all-dns")
    network.apply("nft", *flags[1:])
    lost = ("setpriv", "--bounding-set", "-setuid,-setgid", "--inh-caps", "-setuid,-setgid")
    command = components.command("krun-iptables")
    done = network.workload.run(*lost, command, "verify", *flags, env=processes.environment())
    assert done.returncode == 0, done.stdout + done.stderr
    assert "this process cannot be uid 1337" in done.stdout


def test_the_proxys_user_proves_what_comes_in(network: Network) -> None:
    network.apply("nft", *EVERYTHING[1:])
    done = as_user(network, 1337, *EVERYTHING)
    assert done.returncode == 0, done.stdout + done.stderr
    found = outcomes(done)
    for family in FAMILIES:
        assert (found[f"outbound IPv{family} anywhere"], found[f"inbound IPv{family}"]) == ("unknown", "ok")


def test_where_only_root_could_prove_anything_it_is_not_permitted(network: Network) -> None:
    network.apply("nft", "-i", "*")
    done = as_user(network, 1337, "--include", "10.0.0.0/8")
    assert (done.returncode, set(outcomes(done).values())) == (77, {"unknown"}), done.stdout
    assert "hint: run it as root" in done.stderr


def test_an_address_that_no_way_leads_to_is_no_proof_and_no_failure(network: Network, way: str) -> None:
    network.apply(way, "-i", f"172.16.0.0/12,{RANGE[4]}")
    done = network.krun("verify", "-i", f"172.16.0.0/12,{RANGE[4]}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert outcomes(done)["outbound IPv4 172.16.0.0/12"] == "unknown"


def test_what_does_not_come_is_waited_for_no_longer_than_the_limit(network: Network) -> None:
    # The peer swallows it: neither an answer nor a refusal.
    network.peer.must(
        "nft", "add table ip hole; add chain ip hole in { type filter hook input priority 0; policy drop; }"
    )
    try:
        done = network.krun("verify", "-i", RANGE[4], "--timeout", "0.3")
    finally:
        network.peer.must("nft", "delete table ip hole")
    assert done.returncode == 126
    assert "did not arrive at port 15001: nothing came within 0.3 s" in done.stdout


def test_run_validation_proves_the_rules_that_were_just_applied(network: Network, way: str) -> None:
    done = network.krun("istio-iptables", *WAYS[way], *EVERYTHING, "--run-validation")
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert "outbound IPv4" in done.stderr


def test_run_validation_without_rules_fails_as_istios_does(network: Network) -> None:
    flags = ("--skip-rule-apply", "--run-validation", "--probe-timeout", "700ms")
    done = network.krun("istio-iptables", *EVERYTHING, *flags)
    assert done.returncode == 126, done.stderr


def test_krun_alone_is_proven_by_the_same_settings(network: Network, way: str) -> None:
    assert network.krun(*WAYS[way]).returncode == 0
    done = network.krun("verify")
    assert done.returncode == 0, done.stdout + done.stderr
    assert outcomes(done)["outbound IPv4 10.0.0.0/8"] == "ok"


@pytest.mark.parametrize("arguments", [["--timeout", "0"], ["--timeout", "x"], ["--no-such"], ["-i", "10.0.0.0/40"]])
def test_wrong_use_is_one_line_and_proves_nothing(network: Network, arguments: list[str]) -> None:
    done = network.krun("verify", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("krun-iptables: error: ")
    assert "Traceback" not in done.stderr
