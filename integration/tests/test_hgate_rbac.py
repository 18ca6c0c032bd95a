"""hgate works with the rights of manifests/ and no other; without one of them its log says which is missing."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from krun_testbed import hgate_deployment, hgate_front, hgate_installed, hgate_world, processes
from krun_testbed.certificates import Authority
from krun_testbed.google_tokens import Issuer
from krun_testbed.hgate_installed import Installed
from krun_testbed.hgate_roles import Right
from krun_testbed.hgate_world import World
from krun_testbed.mesh_cluster import Cluster

pytestmark = [pytest.mark.mesh, pytest.mark.timeout(600)]

NOTICED = 8.0  # seconds after each step until the log says what was missing for it
LAST = 40.0
# Cloud Run's own list is looked at, too: only then is it known that nobody has a claim any more.
POLICY = """
namespaces: {"*": {projects: [own]}}
cloudRun: [{project: demo-project, regions: [us-central1]}]
"""
STARTED = '"message": "(ready|not permitted)"'


@pytest.fixture(scope="module")
def world(
    cluster: Cluster, tmp_path_factory: pytest.TempPathFactory, authority: Authority, issuer: Issuer
) -> Iterator[World]:
    folder: Path = tmp_path_factory.mktemp("google")
    with hgate_world.world(cluster, folder=folder, authority=authority, issuer=issuer) as made:
        yield made


def chosen() -> list[Right]:
    """Those that every life of a declaration needs, whatever else happens; each takes its time: here only some."""
    rights = [right for right in hgate_deployment.rights() if right.verb in ("list", "watch", "create", "delete")]
    return rights if os.environ.get("KRUN_SOAK") else rights[::7]


@pytest.mark.parametrize("right", chosen(), ids=str)
def test_without_a_right_the_log_says_which(world: World, right: Right) -> None:
    namespace = world.cluster.namespace()
    with hgate_installed.installed(world, policy=POLICY, without=right, until=STARTED) as hgate:
        for step in steps(hgate, namespace):
            step()
            if is_said(hgate, right, timeout=NOTICED):
                break
        else:
            assert is_said(hgate, right, timeout=LAST), hgate.told()
        lines = hgate.gate.said("not permitted")
        assert {(line["verb"], line["resource"].rpartition("/")[2]) for line in lines} == {(right.verb, right.spelled)}
        assert all(line["severity"] == "WARNING" and line["hint"] for line in lines)
        assert hgate.gate.status("/healthz/live").status == 200


def steps(hgate: Installed, namespace: str) -> list[Callable[[], object]]:
    """A life of declarations, in which each right is needed once."""
    user, kubernetes = hgate.user(namespace), hgate.world.cluster.kubernetes
    urls = [f"https://{hgate_front.deterministic(name)}" for name in ("one", "two")]
    path = f"/api/v1/namespaces/{namespace}/services/store"

    def declare(url: str, *, port: int = 8080, **annotations: str) -> Callable[[], object]:
        given = {"hgate.krun/url": url, **{f"hgate.krun/{key}": value for key, value in annotations.items()}}
        metadata = {"name": "store", "annotations": given}
        spec = {"ports": [{"name": "http", "port": port}]}
        service = {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}
        return lambda: user.apply(service, namespace=namespace)

    return [
        declare(f"{urls[0]}=50 {urls[1]}=50"),
        declare(f"{urls[0]}=20 {urls[1]}=80", port=8081, timeout="100", workload="other"),
        lambda: hgate_deployment.balanced(kubernetes, hgate_deployment.PUBLIC, "203.0.113.43"),
        declare("http://refused.example"),
        declare(urls[0]),
        lambda: user.delete(path),
        declare("http://refused.example"),
    ]


def is_said(hgate: Installed, right: Right, *, timeout: float) -> bool:
    """Tell whether the log names the right within so many seconds."""
    try:
        processes.wait_until(
            lambda: bool(hgate.gate.said("not permitted", verb=right.verb)),
            what="the log says it",
            timeout=timeout,
            poll=0.05,
        )
    except AssertionError:
        return False
    return True
