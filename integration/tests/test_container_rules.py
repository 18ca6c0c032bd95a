"""Interception rules in a real container: with NET_ADMIN they are applied beside Docker's own, without it 77."""

from __future__ import annotations

import pytest

from krun_testbed.containers import Container
from krun_testbed.containers_mesh import Mesh

pytestmark = [pytest.mark.containers, pytest.mark.timeout(300)]

DENIED = 77


def rules(container: Container) -> list[str]:
    """The nat table, of both kinds of iptables, without what changes by itself."""
    saved = container.exec("sh", "-c", "iptables-legacy-save -t nat; iptables-nft-save -t nat").stdout
    return [line for line in saved.splitlines() if not line.startswith(("#", ":"))]


def test_rules_stand_beside_dockers_name_service_and_go_again(mesh: Mesh) -> None:
    with mesh.plain("sleep", "600", image="golden", cap_add=["NET_ADMIN"]) as container:
        before = rules(container)
        assert container.exec("krun-iptables").returncode == 0
        assert [line for line in rules(container) if "15001" in line]
        assert set(before) <= set(rules(container))
        # Docker's resolver is itself behind nat rules of this container.
        assert container.exec("getent", "ahostsv4", "b").stdout.split()[0]
        assert container.exec("krun-iptables").returncode == 0
        container.exec("krun-iptables", "--remove")
        assert rules(container) == before


@pytest.mark.parametrize("user", ["0:0", "65532:65532"])
def test_without_the_right_nothing_changes_and_the_status_says_so(user: str, mesh: Mesh) -> None:
    caps = ["NET_ADMIN"] if user != "0:0" else []
    with mesh.plain("sleep", "600", image="golden", cap_add=caps) as container:
        done = container.exec("krun-iptables", user=user, check=False)
        assert done.returncode == DENIED, done.stderr
        assert "krun-iptables: error: " in done.stderr
