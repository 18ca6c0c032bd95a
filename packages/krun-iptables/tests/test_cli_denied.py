"""The command where it may not, or is told something wrong: in a namespace of its own, in case it does all the same."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from krun_testbed import components, namespaces, processes
from krun_testbed.namespaces import Namespace

pytestmark = pytest.mark.netns


@pytest.fixture(scope="module")
def alone() -> Iterator[Namespace]:
    with namespaces.namespace() as own:
        yield own


def iptables(where: Namespace, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return where.run(components.command("krun-iptables"), *arguments, env=processes.environment(**environment))


@pytest.mark.parametrize(
    "arguments",
    [[], ["--iptables", "legacy"], ["istio-iptables"], ["istio-iptables", "--native-nftables"], ["-m", "TPROXY"]],
)
def test_without_iptables_in_path_it_is_not_permitted(arguments: list[str], alone: Namespace, tmp_path: Path) -> None:
    done = iptables(alone, *arguments, PATH=str(tmp_path))
    assert (done.returncode, done.stdout) == (77, ""), done.stderr
    error, hint = done.stderr.splitlines()
    assert error.startswith("krun-iptables: error: ")
    assert hint.startswith("hint: ")


@pytest.mark.parametrize(
    ("name", "value"),
    [("OUTBOUND_IP_RANGES_INCLUDE", "10.0.0.0/40"), ("ISTIO_INBOUND_PORTS", "http"), ("PROXY_GID", "no-such-group")],
)
def test_a_wrong_variable_applies_nothing(name: str, value: str, alone: Namespace) -> None:
    done = iptables(alone, **{name: value})
    assert (done.returncode, done.stdout) == (78, "")
    error, hint = done.stderr.splitlines()
    assert error.startswith(f"krun-iptables: error: {name}: {value!r} ")
    assert hint.startswith("hint: ")
    assert not [line for line in alone.must("iptables-save").splitlines() if "ISTIO" in line]


def test_a_wrong_variable_is_nothing_to_whoever_removes(alone: Namespace) -> None:
    done = iptables(alone, "--remove", OUTBOUND_IP_RANGES_INCLUDE="no range", ISTIO_INBOUND_PORTS="none")
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
