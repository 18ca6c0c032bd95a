"""Of two replicas both serve and one writes; when that one dies, the other goes on, and calls of pods do not notice."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from krun_testbed import hgate_front, hgate_installed, hgate_load, hgate_world, processes
from krun_testbed.certificates import Authority
from krun_testbed.google_tokens import Issuer
from krun_testbed.hgate_installed import Installed
from krun_testbed.hgate_replica import Replica
from krun_testbed.mesh_cluster import Cluster

pytestmark = [pytest.mark.mesh, pytest.mark.timeout(600)]

COUNT = 12  # declarations, each of which is several objects
TAKEN_OVER = 60.0  # seconds; a lease lives for fifteen


@pytest.fixture
def hgate(cluster: Cluster, tmp_path: Path, authority: Authority, issuer: Issuer) -> Iterator[Installed]:
    with (
        hgate_world.world(cluster, folder=tmp_path, authority=authority, issuer=issuer) as world,
        hgate_installed.installed(world, replicas=2) as made,
    ):
        yield made


def test_one_replica_writes_and_both_have_all_routes(hgate: Installed) -> None:
    namespace = hgate.world.cluster.namespace()
    declare(hgate, namespace, first=0)
    processes.wait_until(lambda: is_whole(hgate, namespace, COUNT), what="all is written", timeout=60, poll=0.2)
    leader, other = by_lease(hgate)
    assert leader.metric("hgate_writes_total") >= COUNT
    assert other.metric("hgate_writes_total") == 0
    processes.wait_until(
        lambda: [each.metric("hgate_routes") for each in hgate.replicas] == [COUNT, COUNT],
        what="both have all routes",
        poll=0.2,
    )


def test_the_other_replica_finishes_what_one_that_is_killed_has_begun(hgate: Installed) -> None:
    namespace = hgate.world.cluster.namespace()
    leader, other = by_lease(hgate)
    declare(hgate, namespace, first=0)
    processes.wait_until(lambda: bool(hgate.objects(namespace)), what="it has begun", poll=0.001)
    leader.kill()
    processes.wait_until(
        lambda: is_whole(hgate, namespace, COUNT), what="the other finishes", timeout=TAKEN_OVER, poll=0.2
    )
    assert other.metric("hgate_is_leader") == 1
    assert sorted(hgate.objects(namespace)) == sorted(set(hgate.objects(namespace)))


def test_a_replica_that_is_told_to_end_gives_the_lease_up_and_ends_no_call(hgate: Installed) -> None:
    world, namespace = hgate.world, hgate.world.cluster.namespace()
    with (
        world.cluster.pod("web", namespace=namespace) as web,
        world.workload("store", namespace=namespace) as store,
    ):
        world.front.add("store", store.place)
        world.front.start()
        service = declared("store")
        service["metadata"]["annotations"]["hgate.krun/timeout"] = "15"
        hgate.user(namespace).apply(service, namespace=namespace)
        url = f"http://store.{namespace}:8080/"
        hgate.reaches(web.place, url)
        address = world.cluster.names.names[f"store.{namespace}.svc.cluster.local"]
        leader, other = by_lease(hgate)
        with hgate_load.constant(web.place, url, to=address, clients=4) as load:
            processes.wait_until(lambda: load.done > 100, what="calls")
            hgate.replicas.remove(leader)  # the load balancer sends it no more
            leader.running.signal(signal.SIGTERM)
            processes.wait_until(lambda: other.metric("hgate_is_leader") == 1, what="the other writes", timeout=8)
            assert leader.running.wait(timeout=60) == 0
            hgate.replicas.insert(0, leader)
        assert load.failures == []


def declare(hgate: Installed, namespace: str, *, first: int) -> None:
    for number in range(first, first + COUNT):
        hgate.user(namespace).apply(declared(f"s{number}"), namespace=namespace)


def declared(name: str) -> dict[str, Any]:
    annotations = {"hgate.krun/url": f"https://{hgate_front.deterministic(name)}"}
    metadata = {"name": name, "annotations": annotations}
    spec = {"ports": [{"name": "http", "port": 8080}]}
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}


def is_whole(hgate: Installed, namespace: str, count: int) -> bool:
    """Tell whether each declaration has all its objects, as many as the others."""
    found = hgate.objects(namespace)
    kinds = {item.partition("/")[0] for item in found}
    return bool(kinds) and all(sum(item.startswith(f"{kind}/") for item in found) >= count for kind in kinds)


def by_lease(hgate: Installed) -> tuple[Replica, Replica]:
    """Who writes, and the other one."""
    found: list[Replica] = []

    def is_one() -> bool:
        with contextlib.suppress(OSError):
            found[:] = sorted(hgate.replicas, key=lambda each: -each.metric("hgate_is_leader"))
            return [each.metric("hgate_is_leader") for each in found] == [1, 0]
        return False

    processes.wait_until(is_one, what="one of two has the lease", timeout=TAKEN_OVER, poll=0.1)
    return found[0], found[1]
