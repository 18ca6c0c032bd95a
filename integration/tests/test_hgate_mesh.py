"""A pod's plain call reaches an application behind Cloud Run's front through hgate, by mutual TLS, in a real mesh."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from krun_testbed import hgate_replica, hgate_world
from krun_testbed.certificates import Authority
from krun_testbed.google_tokens import Issuer
from krun_testbed.hgate_world import World
from krun_testbed.mesh_cluster import Cluster

pytestmark = [pytest.mark.mesh, pytest.mark.timeout(300)]


@pytest.fixture
def world(cluster: Cluster, tmp_path: Path, authority: Authority, issuer: Issuer) -> Iterator[World]:
    with hgate_world.world(cluster, folder=tmp_path, authority=authority, issuer=issuer) as made:
        yield made


def test_a_route_by_hand_and_objects_by_hand_lead_to_cloud_run(world: World) -> None:
    namespace = world.cluster.namespace()
    with (
        world.cluster.pod("web", namespace=namespace) as web,
        world.workload("store", namespace=namespace) as store,
    ):
        url = f"https://{world.front.add('store', store.place)}"
        world.front.start()
        with world.gate(args=hgate_replica.static({f"store.{namespace}": url})) as gate:
            address = world.by_hand(store, gate)
            world.settle(store, gate, web)
            answer = web.call(f"http://store.{namespace}:8080/", to=address)
        assert answer.by == "store"
        assert answer.identities == (web.identity, store.identity)
        assert world.audiences == [url]
        assert {(request["host"], request["email"]) for request in world.front.noted()} == {
            (url.removeprefix("https://"), hgate_world.ACCOUNT)
        }
