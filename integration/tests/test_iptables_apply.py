"""What krun-iptables leaves in the kernel: all of one set of rules or none, and nothing of other people's changed."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from krun_testbed import components, kernel_rules, namespaces, processes
from krun_testbed.kernel_rules import SETTINGS, WAYS, Held, held
from krun_testbed.namespaces import Namespace

pytestmark = pytest.mark.netns


@pytest.fixture
def workload() -> Iterator[Namespace]:
    """A network namespace with addresses of both families, and other people's rules."""
    if os.geteuid() != 0:
        pytest.skip("rules name users that only root can be: run the tests as root")
    with namespaces.namespace() as own:
        for address in kernel_rules.ADDRESSES:
            own.must("ip", "address", "add", address, "dev", "lo")
        kernel_rules.add_others(own)
        yield own


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> tuple[str, ...]:
    """Flags of each way into the kernel."""
    return WAYS[request.param]


def iptables(where: Namespace, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    env = processes.environment(KRUN_LOG_FORMAT="text", **environment)
    return where.run(components.command("krun-iptables"), *arguments, env=env)


def applied(where: Namespace, *flags: str) -> Held:
    """What is there after the rules were applied."""
    done = iptables(where, "istio-iptables", *flags)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    return held(where)


def removed(where: Namespace) -> Held:
    done = iptables(where, "--remove")
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    return held(where)


@pytest.mark.parametrize("name", SETTINGS)
def test_rules_that_are_there_are_not_touched_by_a_second_run(
    workload: Namespace, way: tuple[str, ...], name: str
) -> None:
    first = applied(workload, *way, *SETTINGS[name])
    assert first.ours
    # A rule that is made anew counts from zero.
    workload.call("10.3.0.1", 9)
    workload.call("2001:db8:3::1", 9)
    used = held(workload)
    assert used.untouched != first.untouched
    assert applied(workload, *way, *SETTINGS[name]) == used
    assert applied(workload, *way, *SETTINGS[name], "--reconcile") == used


def test_rules_are_made_anew_by_force(workload: Namespace, way: tuple[str, ...]) -> None:
    first = applied(workload, *way, *SETTINGS["redirect"])
    workload.call("10.3.0.1", 9)
    used = held(workload)
    forced = applied(workload, *way, *SETTINGS["redirect"], "--force-apply")
    assert forced.ours == first.ours
    assert forced.untouched != used.untouched
    assert forced.others == used.others


@pytest.mark.parametrize("name", SETTINGS)
def test_removal_leaves_what_was_there_before_and_needs_no_settings(
    workload: Namespace, way: tuple[str, ...], name: str
) -> None:
    before = held(workload)
    assert applied(workload, *way, *SETTINGS[name]).others == before.others
    assert removed(workload) == before
    assert removed(workload) == before
    applied(workload, *way, *SETTINGS[name], "-t", "99", "-r", "300")
    done = iptables(workload, "istio-iptables", "--cleanup-only")
    assert done.returncode == 0, done.stderr
    assert held(workload) == before


def test_native_tables_that_another_program_makes_meanwhile_are_replaced(workload: Namespace, tmp_path: Path) -> None:
    wanted = applied(workload, "--native-nftables", *SETTINGS["redirect"])
    removed(workload)
    nft = shutil.which("nft") or "nft"
    first = "add table inet istio-proxy-nat; add chain inet istio-proxy-nat output; add table inet istio-proxy-raw"
    meanwhile = tmp_path / "nft"
    meanwhile.write_text(f'#!/bin/sh\n{nft} "{first}" && touch {tmp_path}/made\nexec {nft} "$@"\n')
    meanwhile.chmod(0o755)
    done = iptables(
        workload,
        "istio-iptables",
        "--native-nftables",
        *SETTINGS["redirect"],
        PATH=f"{tmp_path}{os.pathsep}{os.environ['PATH']}",
    )
    assert (done.returncode, (tmp_path / "made").exists()) == (0, True), done.stderr
    after = held(workload)
    assert (after.ours, after.routes, after.others) == (wanted.ours, wanted.routes, wanted.others)


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("reconcile", [(), ("--reconcile",)])
def test_other_settings_replace_ours_and_nothing_else(
    workload: Namespace, way: tuple[str, ...], name: str, reconcile: tuple[str, ...]
) -> None:
    alone = applied(workload, *way, *SETTINGS[name])
    for other in SETTINGS:
        applied(workload, *way, *SETTINGS[other], *reconcile)
        after = applied(workload, *way, *SETTINGS[name], *reconcile)
        assert (after.ours, after.routes, after.others) == (alone.ours, alone.routes, alone.others), other


def test_another_mark_keeps_the_table_that_both_lead_to(workload: Namespace, way: tuple[str, ...]) -> None:
    flags = ("--dual-stack", "-m", "TPROXY", "-b", "*")
    alone = applied(workload, *way, *flags, "-t", "77").routes
    assert "default" in alone
    applied(workload, *way, *flags)
    after = applied(workload, *way, *flags, "-t", "77").routes
    # The kernel chooses the place of a rule.
    assert re.sub(r"^\d+:", "", after, flags=re.M) == re.sub(r"^\d+:", "", alone, flags=re.M)


def test_ipv6_that_is_off_now_leaves_no_rules_of_it(workload: Namespace, way: tuple[str, ...]) -> None:
    _, *only_4 = SETTINGS["tproxy"]
    alone = applied(workload, *way, *only_4)
    both = applied(workload, *way, *SETTINGS["tproxy"])
    assert both.routes != alone.routes
    after = applied(workload, *way, *only_4)
    assert (after.ours, after.routes, after.others) == (alone.ours, alone.routes, alone.others)


@pytest.mark.parametrize("first", WAYS)
def test_only_one_way_holds_rules_of_ours(workload: Namespace, way: tuple[str, ...], first: str) -> None:
    alone = applied(workload, *way, *SETTINGS["dns"])
    applied(workload, *WAYS[first], *SETTINGS["redirect"])
    after = applied(workload, *way, *SETTINGS["dns"])
    assert (after.ours, after.routes, after.others) == (alone.ours, alone.routes, alone.others)


def test_rules_of_another_namespace_are_applied_by_its_path(workload: Namespace, way: tuple[str, ...]) -> None:
    here = applied(workload, *way, *SETTINGS["tproxy"])
    removed(workload)
    with namespaces.namespace(beside=workload) as outside:
        before = held(outside)
        path = ("--network-namespace", f"/proc/{workload.pid}/ns/net")
        for more in ((), ("--cni-mode",)):
            done = iptables(outside, "istio-iptables", *way, *SETTINGS["tproxy"], *path, *more)
            assert done.returncode == 0, done.stderr
            after = held(workload)
            assert (after.ours, after.routes, after.others) == (here.ours, here.routes, here.others)
            done = iptables(outside, "istio-iptables", "--cleanup-only", *path, *more)
            assert done.returncode == 0, done.stderr
            assert held(workload).ours == {}
        assert held(outside) == before


def test_a_namespace_that_is_not_there_is_named(workload: Namespace, tmp_path: Path) -> None:
    nowhere, file = str(tmp_path / "nowhere"), tmp_path / "file"
    file.touch()
    before = held(workload)
    for path in (nowhere, str(file)):
        done = iptables(workload, "istio-iptables", "--network-namespace", path)
        assert (done.returncode, done.stdout) == (78, ""), done.stderr
        assert path in done.stderr.splitlines()[0]
    assert held(workload) == before


@pytest.mark.parametrize("round_", range(3))
def test_of_two_runs_at_once_one_set_is_left_whole(workload: Namespace, way: tuple[str, ...], round_: int) -> None:
    sets = [applied(workload, *way, *SETTINGS[name]) for name in ("redirect", "dns")]
    if round_:
        removed(workload)
    argv = workload.inside([components.command("krun-iptables"), "istio-iptables", *way])
    env = processes.environment(KRUN_LOG_FORMAT="text")
    with contextlib.ExitStack() as both:
        running = [
            both.enter_context(processes.start([*argv, *SETTINGS[name]], env=env))
            for name in ("redirect", "dns", "redirect", "dns")
        ]
        assert [one.wait() for one in running] == [0] * len(running), [one.stderr for one in running]
    after = held(workload)
    assert after.ours in [one.ours for one in sets]
    assert after.others == sets[0].others
