"""krun-iptables on the real kernel, each test in network namespaces of its own: what traffic does, and what is left."""

from __future__ import annotations

import fcntl
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from krun_testbed import components, namespaces, processes
from krun_testbed.namespaces import Namespace

pytestmark = pytest.mark.netns

KINDS = ("legacy", "nft")
HERE, THERE, OUTSIDE = "10.1.0.1", "10.1.0.2", "192.0.2.2"
# As another program leaves them: chains, rules before and after, comments that look like ours.
OTHERS = """\
*nat
:OTHER - [0:0]
-A OUTPUT -d 203.0.113.7/32 -m comment --comment "not -j ISTIO_OUTPUT" -j OTHER
-A PREROUTING -d 203.0.113.8/32 -j OTHER
-A OTHER -p tcp -j RETURN
COMMIT
*filter
:ISTIO_OUTPUT_OF_OTHERS - [0:0]
-A OUTPUT -j ISTIO_OUTPUT_OF_OTHERS
COMMIT
"""


@pytest.fixture
def bare() -> Iterator[Namespace]:
    """An empty network namespace; a plain user's has no other user than its root."""
    with namespaces.namespace() as own:
        yield own


@pytest.fixture
def workload(bare: Namespace) -> Namespace:
    """One with all users, as the rules name some: the kernel refuses rules about users that are not there."""
    if os.geteuid() != 0:
        pytest.skip("rules name users that only root can be: run the tests as root")
    return bare


@pytest.fixture
def outside(workload: Namespace) -> Iterator[Namespace]:
    """A second one, at the other end of a cable from the workload's, where everything listens that tests call."""
    with namespaces.namespace(beside=workload) as other:
        namespaces.join(
            workload,
            other,
            here_addresses=[f"{HERE}/24", "192.0.2.1/24"],
            there_addresses=[f"{THERE}/24", f"{OUTSIDE}/24"],
        )
        places = [f"{address}:{port}" for address in (THERE, OUTSIDE) for port in (80, 5432, 15009)]
        with other.listen(*places):
            yield other


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """Which iptables: both, as images have one or the other."""
    name: str = request.param
    return name


def iptables(
    where: Namespace, *arguments: str, below: tuple[str, ...] = (), **environment: str
) -> subprocess.CompletedProcess[str]:
    """The command, in a namespace of its own and never in ours; ``below`` is a program that starts it."""
    env = processes.environment(KRUN_LOG_FORMAT="text", **environment)
    return where.run(*below, components.command("krun-iptables"), *arguments, env=env)


def applied(where: Namespace, *arguments: str, **environment: str) -> None:
    done = iptables(where, *arguments, **environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""


def saved(where: Namespace, kind: str) -> str:
    """Every table of one kind, without the time and the counters."""
    text = where.must(f"iptables-{kind}-save", "-t", "nat") + where.must(f"iptables-{kind}-save", "-t", "filter")
    return re.sub(r" \[\d+:\d+\]", "", re.sub(r"^#.*\n", "", text, flags=re.M))


def others(where: Namespace, kind: str) -> None:
    done = where.run(f"iptables-{kind}-restore", stdin=OTHERS)
    assert done.returncode == 0, done.stderr


def test_what_is_applied_is_what_a_dry_run_prints(workload: Namespace, kind: str) -> None:
    flags = ["--inbound-ports", "*", "--include", "*", "--exempt-gid", "7", "--exclude-ports", "22"]
    printed = iptables(workload, "--dry-run", *flags).stdout
    assert workload.run(f"iptables-{kind}-restore", "--noflush", stdin=printed).returncode == 0
    by_hand = saved(workload, kind)
    assert iptables(workload, "--remove").returncode == 0
    applied(workload, "--iptables", kind, *flags)
    assert saved(workload, kind) == by_hand


def test_what_a_dry_run_prints_iptables_restore_takes(workload: Namespace, kind: str) -> None:
    printed = iptables(workload, "--dry-run", "--inbound-ports", "8080").stdout
    done = workload.run(f"iptables-{kind}-restore", "--noflush", stdin=printed)
    assert done.returncode == 0, done.stderr
    by_hand = saved(workload, kind)
    applied(workload, "--iptables", kind, "--inbound-ports", "8080")
    assert saved(workload, kind) == by_hand


@pytest.mark.parametrize("inbound", ["", "*"])
def test_a_second_run_changes_nothing(workload: Namespace, kind: str, inbound: str) -> None:
    others(workload, kind)
    applied(workload, "--iptables", kind, ISTIO_INBOUND_PORTS=inbound)
    # Rules of others that come later stay behind ours.
    workload.must(f"iptables-{kind}", "-t", "nat", "-A", "OUTPUT", "-d", "203.0.113.9", "-j", "OTHER")
    before = saved(workload, kind)
    assert "ISTIO_REDIRECT" in before
    applied(workload, "--iptables", kind, ISTIO_INBOUND_PORTS=inbound)
    assert saved(workload, kind) == before


def test_other_settings_replace_ours_and_nothing_else(workload: Namespace, kind: str) -> None:
    others(workload, kind)
    applied(workload, "--iptables", kind)
    least = saved(workload, kind)
    applied(workload, "--iptables", kind, "--inbound-ports", "*", "--include", "*", "--proxy-uid", "7")
    assert saved(workload, kind) != least
    applied(workload, "--iptables", kind)
    assert saved(workload, kind) == least


def test_removal_needs_no_settings_and_leaves_what_was_there_before(workload: Namespace, kind: str) -> None:
    others(workload, kind)
    before = saved(workload, kind)
    applied(workload, "--iptables", kind, "--inbound-ports", "*", "--include", "*", "--exempt-gid", "7")
    assert saved(workload, kind) != before
    for _ in range(2):
        done = iptables(workload, "--remove", OUTBOUND_IP_RANGES_INCLUDE="no range")
        assert (done.returncode, done.stdout) == (0, ""), done.stderr
        assert saved(workload, kind) == before


def test_removal_finds_rules_of_either_kind(workload: Namespace) -> None:
    before = [saved(workload, kind) for kind in KINDS]
    for kind in KINDS:
        applied(workload, "--iptables", kind)
    assert iptables(workload, "--remove").returncode == 0
    assert [saved(workload, kind) for kind in KINDS] == before


def test_a_rule_of_somebody_else_that_leads_into_ours_goes_with_what_it_leads_to(
    workload: Namespace, kind: str
) -> None:
    others(workload, kind)
    applied(workload, "--iptables", kind, "--inbound-ports", "*")
    before = saved(workload, kind)
    workload.must(f"iptables-{kind}", "-t", "nat", "-A", "OTHER", "-d", "203.0.113.9", "-g", "ISTIO_INBOUND")
    applied(workload, "--iptables", kind, "--inbound-ports", "*")
    assert saved(workload, kind) == before


def test_a_failure_changes_nothing_and_shows_its_line(workload: Namespace, kind: str, tmp_path: Path) -> None:
    others(workload, kind)
    applied(workload, "--iptables", kind)
    before = saved(workload, kind)
    # What iptables-save says is of another moment: meanwhile somebody took that rule and that chain away.
    save = tmp_path / f"iptables-{kind}-save"
    old = "*nat\n:ISTIO_INBOUND - [0:0]\n-A PREROUTING -p tcp -j ISTIO_INBOUND\nCOMMIT"
    save.write_text(f"#!/bin/sh\necho '{old}'\n")
    save.chmod(0o755)
    path = f"{tmp_path}:{processes.environment()['PATH']}"
    for arguments in ([], ["--remove"]):
        done = iptables(workload, "--iptables", kind, *arguments, PATH=path)
        assert (done.returncode, done.stdout) == (69, ""), done.stderr
        error, hint = done.stderr.splitlines()
        assert "ISTIO_INBOUND" in error
        assert "nothing was changed" in hint
        assert saved(workload, kind) == before


def test_a_lock_that_another_program_holds_is_waited_for_and_named(workload: Namespace, tmp_path: Path) -> None:
    with (tmp_path / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = iptables(workload, "--iptables", "legacy", XTABLES_LOCKFILE=lock.name)
    assert (done.returncode, done.stdout) == (75, ""), done.stderr
    assert "xtables lock" in done.stderr


def test_a_connection_into_the_ranges_arrives_at_15001_and_knows_where_it_wanted_to_go(
    workload: Namespace, outside: Namespace, kind: str
) -> None:
    assert workload.call(THERE, 80).startswith("80 ")
    applied(workload, "--iptables", kind)
    assert workload.call(THERE, 80) == "ConnectionRefusedError"
    with workload.listen("127.0.0.1:15001"):
        assert workload.call(THERE, 80) == f"15001 {THERE}:80"
        assert workload.call(THERE, 81) == f"15001 {THERE}:81"
        assert workload.call(OUTSIDE, 80).startswith("80 ")
    assert iptables(workload, "--remove").returncode == 0
    assert workload.call(THERE, 80).startswith("80 ")


def test_a_star_takes_every_address_and_an_excluded_port_none(workload: Namespace, outside: Namespace) -> None:
    applied(workload, "--include", "*", "--exclude-ports", "5432")
    with workload.listen("127.0.0.1:15001"):
        assert workload.call(OUTSIDE, 80) == f"15001 {OUTSIDE}:80"
        for address in (THERE, OUTSIDE):
            assert workload.call(address, 5432).startswith("5432 ")
            assert workload.call(address, 15009).startswith("15009 ")


def test_the_proxys_user_its_group_and_exempt_groups_are_not_intercepted(
    workload: Namespace, outside: Namespace, kind: str
) -> None:
    applied(workload, "--iptables", kind, "--exempt-gid", "2000")
    with workload.listen("127.0.0.1:15001"):
        for uid, gid, port in ((1337, 1337, "80"), (1337, 5, "80"), (5, 1337, "80"), (5, 2000, "80"), (5, 5, "15001")):
            assert workload.call(THERE, 80, uid=uid, gid=gid).split()[0] == port, (uid, gid)


def test_other_ids_of_the_proxy_take_the_place_of_1337(workload: Namespace, outside: Namespace) -> None:
    applied(workload, "--include", "10.0.0.0/8", PROXY_UID="100,101", PROXY_GID="102")
    with workload.listen("127.0.0.1:15001"):
        for uid, gid, port in ((100, 5, "80"), (101, 5, "80"), (5, 102, "80"), (1337, 1337, "15001")):
            assert workload.call(THERE, 80, uid=uid, gid=gid).split()[0] == port, (uid, gid)


@pytest.mark.parametrize("inbound", ["", "*"])
def test_loopback_is_left_alone(workload: Namespace, outside: Namespace, inbound: str) -> None:
    applied(workload, "--include", "*", ISTIO_INBOUND_PORTS=inbound)
    with workload.listen("0.0.0.0:8080", "0.0.0.0:15001", "0.0.0.0:15006"):
        for uid in (0, 5, 1337):
            for address in ("127.0.0.1", "127.0.0.2", "127.200.0.1"):
                assert workload.call(address, 8080, uid=uid, gid=uid).startswith("8080 "), (uid, address)
        # The application calls itself by its own address.
        assert workload.call(HERE, 8080, uid=5, gid=5).startswith("8080 ")
        # Envoy hands over an incoming connection from its own source address.
        assert workload.call(HERE, 8080, uid=1337, gid=1337, source="127.0.0.6").startswith("8080 ")


def test_the_proxy_that_calls_its_own_workload_comes_in_as_others_do(workload: Namespace, outside: Namespace) -> None:
    with workload.listen("0.0.0.0:8080", "0.0.0.0:15001", "0.0.0.0:15006"):
        applied(workload)
        assert workload.call(HERE, 8080, uid=1337, gid=1337).startswith("8080 ")
        applied(workload, "--inbound-ports", "*")
        assert workload.call(HERE, 8080, uid=1337, gid=1337) == f"15006 {HERE}:8080"


def test_incoming_connections_are_left_alone_until_asked_for(
    workload: Namespace, outside: Namespace, kind: str
) -> None:
    exempt = (15008, 15009, 15019, 15020, 15021, 15090)
    with workload.listen(*(f"0.0.0.0:{port}" for port in (22, 8080, 8081, 15006, *exempt))):
        applied(workload, "--iptables", kind)
        assert outside.call(HERE, 8080).startswith("8080 ")
        applied(workload, "--iptables", kind, "--inbound-ports", "8080")
        assert outside.call(HERE, 8080) == f"15006 {HERE}:8080"
        assert outside.call(HERE, 8081).startswith("8081 ")
        applied(workload, "--iptables", kind, "--inbound-ports", "*", "--inbound-exclude-ports", "22")
        assert outside.call(HERE, 8081) == f"15006 {HERE}:8081"
        for port in (22, *exempt):
            assert outside.call(HERE, port).startswith(f"{port} ")
        applied(workload, "--iptables", kind)
        assert outside.call(HERE, 8080).startswith("8080 ")


WITHOUT_NET_ADMIN = ("setpriv", "--bounding-set", "-net_admin", "--inh-caps", "-net_admin")


@pytest.mark.parametrize("arguments", [[], ["--remove"]])
@pytest.mark.parametrize("which", ["auto", *KINDS])
def test_without_net_admin_it_is_not_permitted_and_nothing_changes(
    bare: Namespace, which: str, arguments: list[str]
) -> None:
    before = [saved(bare, kind) for kind in KINDS]
    done = iptables(bare, *arguments, "--iptables", which, below=WITHOUT_NET_ADMIN)
    assert (done.returncode, done.stdout) == (77, ""), done.stderr
    error, hint = done.stderr.splitlines()
    assert error.startswith("krun-iptables: error: rules cannot be ")
    assert "NET_ADMIN" in hint
    assert [saved(bare, kind) for kind in KINDS] == before


@pytest.mark.parametrize("which", ["auto", *KINDS])
def test_another_user_than_root_is_not_permitted(workload: Namespace, which: str) -> None:
    # May look into any folder, as a checkout may lie in root's: it is the rules that are not permitted.
    looks = ("--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search")
    user = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", *looks)
    done = iptables(workload, "--iptables", which, below=user)
    assert (done.returncode, done.stdout) == (77, ""), done.stderr
    assert "NET_ADMIN" in done.stderr


def test_a_user_namespace_without_the_proxys_ids_is_not_permitted(bare: Namespace) -> None:
    # As in a container of a user who has no further ids: the kernel refuses rules about users that are not there.
    done = iptables(bare, "--iptables", "nft", below=("unshare", "--user", "--map-root-user", "--net"))
    assert done.returncode == 77, done.stderr
    assert "1337" in done.stderr
