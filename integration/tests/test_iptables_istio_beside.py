"""krun-iptables and the real pilot-agent in one kernel: each takes the other's rules for its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from krun_testbed import components, istio_build, kernel_rules, namespaces, processes
from krun_testbed.kernel_rules import SETTINGS, WAYS, Held, held
from krun_testbed.namespaces import Namespace

pytestmark = [pytest.mark.istio, pytest.mark.timeout(300)]


@pytest.fixture
def workload() -> Iterator[Namespace]:
    """A network namespace with addresses of both families, and other people's rules."""
    with namespaces.namespace() as own:
        for address in kernel_rules.ADDRESSES:
            own.must("ip", "address", "add", address, "dev", "lo")
        kernel_rules.add_others(own)
        yield own


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> tuple[str, ...]:
    return WAYS[request.param]


def by(program: str, where: Namespace, *flags: str) -> Held:
    """What is there after one of the two was run."""
    agent = (str(istio_build.binary()), "istio-iptables")
    argv = agent if program == "agent" else (components.command("krun-iptables"), "istio-iptables")
    done = where.run(*argv, *flags, env=processes.environment())
    assert done.returncode == 0, done.stderr[-2000:]
    return held(where)


@pytest.mark.parametrize("name", ["redirect", "dns"])
def test_rules_that_istio_applied_are_ours_and_removed_without_memory(
    workload: Namespace, way: tuple[str, ...], name: str
) -> None:
    before = held(workload)
    theirs = by("agent", workload, *way, *SETTINGS[name])
    assert by("krun", workload, *way, *SETTINGS[name]) == theirs
    assert by("krun", workload, "--cleanup-only") == before


# With TPROXY its second run fails, also over its own rules: the routing rule is there already.
@pytest.mark.parametrize("name", ["redirect", "dns"])
def test_istio_finds_that_its_rules_are_there_when_we_applied_them(
    workload: Namespace, way: tuple[str, ...], name: str
) -> None:
    ours = by("krun", workload, *way, *SETTINGS[name])
    after = by("agent", workload, *way, *SETTINGS[name])
    assert (after.ours, after.others) == (ours.ours, ours.others)


def test_istios_rules_give_way_to_other_settings(workload: Namespace, way: tuple[str, ...]) -> None:
    alone = by("krun", workload, *way, *SETTINGS["dns"])
    by("krun", workload, "--cleanup-only")
    by("agent", workload, *way, *SETTINGS["redirect"])
    after = by("krun", workload, *way, *SETTINGS["dns"])
    assert (after.ours, after.routes, after.others) == (alone.ours, alone.routes, alone.others)
