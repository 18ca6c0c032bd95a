"""Where others have changed the kernel's rules, or not all can be seen, krun-iptables does not say what is not so."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from krun_testbed import components, namespaces, processes
from krun_testbed.namespaces import Namespace

pytestmark = pytest.mark.netns

# Somebody else's rules in iptables' own tables, made by nft: from then on iptables-nft-save does not show the tables.
BY_NFT = """\
table ip nat {
    set others { type ipv4_addr; }
    chain OUTPUT { type nat hook output priority -100; ip daddr @others tcp dport 80 redirect to :8080; }
}
table ip mangle {
    set others { type ipv4_addr; }
    chain PREROUTING { type filter hook prerouting priority -150; ip daddr @others return; }
}
table ip filter {
    set others { type ipv4_addr; }
    chain FORWARD { type filter hook forward priority 0; ip daddr @others accept; }
}
"""
# Another user, who may change rules, and may read the checkout, which may lie in root's folder.
AS_NOBODY = (
    *("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"),
    *("--inh-caps", "+dac_read_search,+net_admin", "--ambient-caps", "+dac_read_search,+net_admin"),
)
BOTH_TABLES = ("--include", "*", "--drop-invalid")  # two transactions: another process does them


@pytest.fixture
def bare() -> Iterator[Namespace]:
    """A network namespace without rules, with an address."""
    if os.geteuid() != 0:
        pytest.skip("rules name users that only root can be: run the tests as root")
    with namespaces.namespace() as own:
        own.must("ip", "address", "add", "10.1.0.1/24", "dev", "lo")
        yield own


def iptables(
    where: Namespace, *arguments: str, below: tuple[str, ...] = (), **environment: str
) -> subprocess.CompletedProcess[str]:
    env = processes.environment(KRUN_LOG_FORMAT="text", **environment)
    first = [components.program(below[0], package="util-linux"), *below[1:]] if below else []
    return where.run(*first, components.command("krun-iptables"), *arguments, env=env)


def done(where: Namespace, *arguments: str, **environment: str) -> str:
    """What it says when all went well."""
    ended = iptables(where, *arguments, **environment)
    assert (ended.returncode, ended.stdout) == (0, ""), ended.stderr
    return ended.stderr


def failed(status: int, where: Namespace, *arguments: str, below: tuple[str, ...] = (), **environment: str) -> str:
    """The message, which a hint is under."""
    ended = iptables(where, *arguments, below=below, **environment)
    assert (ended.returncode, ended.stdout) == (status, ""), ended.stderr
    message, hint = ended.stderr.splitlines()
    assert message.startswith("krun-iptables: error: ")
    assert hint.startswith("hint: ")
    return message


def rules(where: Namespace) -> list[str]:
    """Of iptables' tables, as nft shows them, whatever their order."""
    return sorted(line.strip() for line in where.must("nft", "--stateless", "list", "ruleset", "ip").splitlines())


SEVERAL = (*BOTH_TABLES, "-m", "TPROXY", "--inbound-ports", "8080", "-c", "eth9")


@pytest.mark.parametrize("is_first", [True, False], ids=["before", "after"])
def test_tables_that_iptables_does_not_show_are_changed_as_others_are(bare: Namespace, is_first: bool) -> None:
    kind = ("--iptables", "nft")
    for made in ("others", "ours") if is_first else ("ours", "others"):
        if made == "ours":
            done(bare, *SEVERAL, *kind)
        else:
            assert bare.run("nft", "-f", "-", stdin=BY_NFT).returncode == 0
    assert "incompatible" in bare.must("iptables-nft-save")
    several = rules(bare)
    assert "applied" in done(bare, *SEVERAL, *kind)
    assert rules(bare) == several
    done(bare, "--include", "10.0.0.0/8", *kind)
    few = [line for line in rules(bare) if "ISTIO" in line]
    assert few == [
        "chain ISTIO_OUTPUT {",
        "chain ISTIO_REDIRECT {",
        "counter jump ISTIO_OUTPUT",
        "ip daddr 10.0.0.0/8 counter jump ISTIO_REDIRECT",
    ]
    assert "eth9" not in bare.must("nft", "list", "ruleset")
    assert "removed" in done(bare, "--remove")
    assert "not there" in done(bare, "--remove")
    left = rules(bare)
    assert not [line for line in left if "ISTIO" in line or "0x539" in line]
    assert sum("@others" in line for line in left) == 3


@pytest.mark.parametrize("arguments", [["--remove"], [], ["--reconcile"]], ids=["remove", "apply", "reconcile"])
def test_a_guard_that_was_left_where_iptables_does_not_show_it_goes(bare: Namespace, arguments: list[str]) -> None:
    bare.must("iptables-nft", "-N", "ISTIO_GUARD")
    bare.must("iptables-nft", "-A", "ISTIO_GUARD", "-j", "DROP")
    for protocol in ("tcp", "udp"):
        bare.must("iptables-nft", "-I", "OUTPUT", "-p", protocol, "-j", "ISTIO_GUARD")
    assert bare.run("nft", "-f", "-", stdin=BY_NFT).returncode == 0
    done(bare, "--iptables", "nft", *arguments)
    assert "ISTIO_GUARD" not in bare.must("nft", "list", "ruleset")


def test_rules_that_iptables_does_not_show_are_not_said_to_be_gone_without_nft(bare: Namespace, tmp_path: Path) -> None:
    done(bare, "--include", "*", "--iptables", "nft")
    assert bare.run("nft", "-f", "-", stdin=BY_NFT).returncode == 0
    for name in ("iptables-nft-save", "iptables-nft-restore"):
        (tmp_path / name).symlink_to(components.program(name, package="iptables"))
    before = rules(bare)
    for arguments in (["--remove"], ["--include", "10.0.0.0/8"]):
        assert "does not show" in failed(69, bare, *arguments, PATH=str(tmp_path))
    assert rules(bare) == before


def test_native_rules_take_the_place_of_those_that_iptables_does_not_show(bare: Namespace) -> None:
    done(bare, *SEVERAL, "--iptables", "nft")
    assert bare.run("nft", "-f", "-", stdin=BY_NFT).returncode == 0
    assert "applied" in done(bare, *SEVERAL, "--native-nftables")
    assert not [line for line in rules(bare) if "ISTIO" in line]
    assert "unchanged" in done(bare, *SEVERAL, "--native-nftables")


def test_names_and_comments_of_others_may_be_any_bytes(bare: Namespace) -> None:
    bare.must("iptables-nft", "-N", "OTHERS\udcff")
    bare.must("iptables-nft", "-t", "nat", "-N", "ISTIO_OUTPUT")
    comment = ("-m", "comment", "--comment", 'caf\udce9 "x" \\ ISTIO_OUTPUT')
    bare.must("iptables-nft", "-t", "nat", "-A", "PREROUTING", *comment, "-j", "ISTIO_OUTPUT")
    bare.must("iptables-nft", "-A", "OUTPUT", *comment, "-j", "ACCEPT")
    theirs = ("sh", "-c", "nft list table ip filter | base64")
    before = bare.must(*theirs)
    assert "applied" in done(bare, "--include", "*", "--iptables", "nft")
    assert "removed" in done(bare, "--remove")
    assert bare.must(*theirs) == before
    assert "jump ISTIO_OUTPUT" not in bare.must("nft", "list", "table", "ip", "nat")


@pytest.mark.parametrize(
    "change",
    [
        "add set inet istio-proxy-nat others { type ipv4_addr; }",
        "add chain inet istio-proxy-nat output { policy drop; }",
        "add chain inet istio-proxy-nat others { type nat hook postrouting priority 100; }",
        "add table inet istio-proxy-nat { flags dormant; }",
    ],
    ids=["set", "policy", "chain", "dormant"],
)
def test_native_tables_that_somebody_has_changed_are_made_anew(bare: Namespace, change: str) -> None:
    done(bare, "--native-nftables")
    ours = bare.must("nft", "--stateless", "list", "ruleset")
    assert bare.run("nft", "-f", "-", stdin=f"{change}\n").returncode == 0
    assert bare.must("nft", "--stateless", "list", "ruleset") != ours
    assert "applied" in done(bare, "--native-nftables")
    assert bare.must("nft", "--stateless", "list", "ruleset") == ours
    assert "unchanged" in done(bare, "--native-nftables")


def test_who_may_not_see_all_of_it_says_that_rules_may_be_left(bare: Namespace) -> None:
    done(bare, "--include", "*", "--iptables", "legacy")
    for arguments in (["--include", "*"], ["--remove"]):
        ended = iptables(bare, *arguments, below=AS_NOBODY)
        assert ended.returncode == 0, ended.stderr
        assert "warning: rules of an earlier run may be left" in ended.stderr
        assert "iptables-legacy-save" in ended.stderr
    assert "ISTIO_OUTPUT" in bare.must("iptables-legacy-save")
    assert "warning" not in done(bare, "--remove")
    assert "ISTIO_OUTPUT" not in bare.must("iptables-legacy-save")


@pytest.mark.parametrize("way", [("--iptables", "nft"), ("--native-nftables",)], ids=["iptables", "native"])
def test_removal_from_one_kind_leaves_what_the_other_one_holds_whole(bare: Namespace, way: tuple[str, ...]) -> None:
    done(bare, "-m", "TPROXY", "--inbound-ports", "8080", *way)
    ruleset, routing = bare.must("nft", "list", "ruleset"), bare.must("ip", "rule")
    assert "not there" in done(bare, "--remove", "--iptables", "legacy")
    assert (bare.must("nft", "list", "ruleset"), bare.must("ip", "rule")) == (ruleset, routing)
    assert "removed" in done(bare, "--remove", "--iptables", "nft")
    assert "istio" not in bare.must("nft", "list", "ruleset").lower()
    assert "1337" not in bare.must("ip", "rule").replace("0x539", "1337")


def test_both_names_of_removal_are_one(bare: Namespace) -> None:
    done(bare)
    assert "removed" in done(bare, "--remove", "--cleanup-only")
    assert "not there" in done(bare, "--remove", CLEANUP_ONLY="true")


def test_a_lock_that_cannot_be_opened_is_no_missing_permission(bare: Namespace, tmp_path: Path) -> None:
    lock = str(tmp_path / "absent" / "lock")
    message = failed(69, bare, "--iptables", "legacy", XTABLES_LOCKFILE=lock)
    assert lock in message
    assert "ISTIO" not in bare.must("iptables-legacy-save")


def test_in_cni_mode_nobody_waits_for_the_lock_of_the_machine(bare: Namespace, tmp_path: Path) -> None:
    there = ("--cni-mode", "--network-namespace", f"/proc/{bare.pid}/ns/net", "--iptables", "legacy")
    with (tmp_path / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        environment = {"XTABLES_LOCKFILE": lock.name}
        failed(75, bare, "--iptables", "legacy", **environment)
        assert "applied" in done(bare, *there, **environment)
        assert "removed" in done(bare, "--remove", *there, **environment)


def test_a_pipe_is_no_namespace(bare: Namespace, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert str(tmp_path / "pipe") in failed(78, bare, "--network-namespace", str(tmp_path / "pipe"))


@pytest.mark.parametrize("by", ["flag", "variable"])
def test_another_namespace_is_explained_and_proven_in_it(bare: Namespace, by: str) -> None:
    place = f"/proc/{bare.pid}/ns/net"
    flags = ["--network-namespace", place] if by == "flag" else []
    variables = {"NETWORK_NAMESPACE": place} if by == "variable" else {}
    with namespaces.namespace(beside=bare) as elsewhere:
        namespaces.join(bare, elsewhere, here_addresses=["10.4.0.1/24"], there_addresses=["10.4.0.2/24"])
        explained = iptables(elsewhere, "explain", "10.4.0.9:80", *flags, **variables)
        assert "from 10.4.0.1" in explained.stdout, explained.stderr
        unproven = iptables(elsewhere, "verify", "--timeout", "2", *flags, **variables)
        assert unproven.returncode == 126, unproven.stdout
        done(elsewhere, "--iptables", "nft", *flags, **variables)
        proven = iptables(elsewhere, "verify", "--iptables", "nft", *flags, **variables)
        assert proven.returncode == 0, proven.stdout + proven.stderr
        assert "ISTIO" not in elsewhere.must("iptables-nft-save")


def test_a_program_that_hangs_ends_the_run_with_a_deadline_and_nothing_is_left(bare: Namespace, tmp_path: Path) -> None:
    sleep, save = (components.program(name, package="coreutils") for name in ("sleep", "true"))
    for name, text in (("iptables-nft-restore", f"{sleep} 120; true"), ("iptables-nft-save", save)):
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    assert "has not ended" in iptables(bare, *BOTH_TABLES, PATH=str(tmp_path)).stderr
    assert bare.must("nft", "list", "ruleset") == ""


@pytest.mark.parametrize(
    "flags", [["--include", "2001:db8::/32"], ["--dual-stack"], ["istio-iptables", "--dual-stack"]]
)
def test_ipv6_that_is_asked_for_and_not_there_is_said_to_be_left_out(bare: Namespace, flags: list[str]) -> None:
    said = done(bare, *flags)
    assert "warning: rules for IPv6 were left out" in said
    assert "no interface has an address" in said
    bare.must("ip", "address", "add", "2001:db8::1/64", "dev", "lo")
    assert "warning" not in done(bare, *flags)
    assert "ISTIO" in bare.must("ip6tables-nft-save")


def test_an_environment_without_path_has_the_usual_one(bare: Namespace) -> None:
    ended = bare.run("env", "-i", components.command("krun-iptables"))
    assert ended.returncode == 0, ended.stderr


def test_an_ipv4_address_in_an_ipv6_one_is_explained_as_the_kernel_has_it(bare: Namespace) -> None:
    with namespaces.namespace(beside=bare) as elsewhere, bare.listen("127.0.0.1:15001"):
        namespaces.join(bare, elsewhere, here_addresses=["10.4.0.1/24"], there_addresses=["10.4.0.2/24"])
        done(bare, "--include", "10.4.0.0/16")
        assert bare.call("::ffff:10.4.0.2", 80) == "15001 10.4.0.2:80"
        explained = iptables(bare, "explain", "[::ffff:10.4.0.2]:80", "--include", "10.4.0.0/16")
    assert "led to Envoy's outbound port 15001" in explained.stdout, explained.stderr


IGNORES = "import os, signal, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN); os.execv(sys.argv[1], sys.argv[1:])"


def test_who_calls_may_ignore_the_end_of_its_children(bare: Namespace) -> None:
    for arguments in (["--include", "*"], [*BOTH_TABLES], ["--remove"]):
        ended = bare.run(sys.executable, "-c", IGNORES, components.command("krun-iptables"), *arguments)
        assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize("limit", ["nofile=6", "fsize=0"])
@pytest.mark.parametrize("settings", [("--include", "*"), BOTH_TABLES], ids=["one-table", "two-tables"])
def test_limits_that_are_too_narrow_are_told_in_one_line(
    bare: Namespace, limit: str, settings: tuple[str, ...]
) -> None:
    failed(69, bare, *settings, below=("prlimit", f"--{limit}"))
    assert bare.must("nft", "list", "ruleset") == ""
