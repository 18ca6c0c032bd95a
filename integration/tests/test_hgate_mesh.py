"""A pod's plain call reaches an application behind Cloud Run's front through hgate, by mutual TLS, in a real mesh."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from krun_testbed import hgate_doors, hgate_world, mesh_agent, mesh_objects, mesh_pod
from krun_testbed.certificates import Authority
from krun_testbed.google_tokens import Issuer
from krun_testbed.hgate_world import World
from krun_testbed.mesh_cluster import SUFFIX, Cluster

pytestmark = [pytest.mark.mesh, pytest.mark.timeout(300)]

IDENTITY = f"http://{hgate_doors.METADATA_NAME}/computeMetadata/v1/instance/service-accounts/default/identity"


@pytest.fixture
def world(cluster: Cluster, tmp_path: Path, authority: Authority, issuer: Issuer) -> Iterator[World]:
    with hgate_world.world(cluster, folder=tmp_path, authority=authority, issuer=issuer) as made:
        yield made


def test_a_route_by_hand_and_objects_by_hand_lead_to_cloud_run(world: World) -> None:
    cluster = world.cluster
    namespace = cluster.namespace()
    service = f"store.{namespace}.{SUFFIX}"
    ask = f"curl -s -f -H Metadata-Flavor:Google {IDENTITY}?audience={{audience}}&format=full"
    with (
        cluster.pod("web", namespace=namespace) as web,
        world.workload("store", namespace=namespace) as store,
    ):
        url = f"https://{world.front.add('store', store.place)}"
        world.front.start()
        args = ["--listen", "0.0.0.0:15442", "--route", f"store.{namespace}={url}", "--token-command", ask]
        with world.gate(args=args) as gate:
            entry = mesh_objects.workload_entry(
                "store", address=gate.place.address, ports={"http": 15442}, account="default", labels={"app": "store"}
            )
            sidecar = mesh_objects.inward("store", labels={"app": "store"})
            cluster.service("store", namespace=namespace)
            cluster.apply(mesh_objects.mutual(service), entry, sidecar, namespace=namespace)
            cluster.settle(web.place, store.place, namespace=namespace)
            mesh_pod.wait_until_served(web.place, gate.place.address)
            mesh_agent.wait_for_config(store.place, "_15003")
            answer = web.call(f"http://store.{namespace}:8080/", to=cluster.names.names[service])
        assert answer.by == "store"
        assert answer.identities == (web.identity, store.identity)
        assert world.audiences == [url]
        assert {(request["host"], request["email"]) for request in world.front.noted()} == {
            (url.removeprefix("https://"), hgate_world.ACCOUNT)
        }
