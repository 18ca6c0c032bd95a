"""Cloud Run's front ends every request at its limit, tunnels too: calls of pods that run all the time lose nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from krun_testbed import hgate_installed, hgate_load, hgate_replica, hgate_world, processes
from krun_testbed.certificates import Authority
from krun_testbed.google_tokens import Issuer
from krun_testbed.hgate_installed import Installed
from krun_testbed.hgate_world import World
from krun_testbed.mesh_cluster import SUFFIX, Cluster

pytestmark = [pytest.mark.mesh, pytest.mark.timeout(600)]

LIMIT = 20 if os.environ.get("KRUN_SOAK") else 6  # seconds for a request, which a tunnel is
ENDED = 8  # tunnels, all clients' together
PATHS = ["/", "/", "/sleep/0.5", "/"]
RESET = "http2.remote_reset"  # by hgate


@pytest.fixture
def world(cluster: Cluster, tmp_path: Path, authority: Authority, issuer: Issuer) -> Iterator[World]:
    with hgate_world.world(cluster, folder=tmp_path, authority=authority, issuer=issuer, limit=LIMIT) as made:
        yield made


def given_up(hgate: Installed) -> list[dict[str, Any]]:
    """What hgate says of connections that their callers have reset."""
    closed = hgate.gate.said("connection closed")
    return [line for line in closed if line["reason"] == "local end is gone: Connection reset by peer"]


def test_no_request_fails_when_the_front_ends_every_tunnel_at_its_limit(world: World) -> None:
    namespace = world.cluster.namespace()
    with (
        hgate_installed.installed(world) as hgate,
        world.cluster.pod("web", namespace=namespace) as web,
        world.workload("store", namespace=namespace) as store,
    ):
        url = f"https://{world.front.add('store', store.place)}"
        world.front.start()
        annotations = {"hgate.krun/url": url, "hgate.krun/timeout": str(LIMIT)}
        spec = {"ports": [{"name": "http", "port": 8080}]}
        service = {"apiVersion": "v1", "kind": "Service", "spec": spec}
        metadata = {"name": "store", "annotations": annotations}
        hgate.user(namespace).apply({**service, "metadata": metadata}, namespace=namespace)
        asked = f"http://store.{namespace}:8080/"
        hgate.reaches(web.place, asked)
        world.cluster.settle(web.place, namespace=namespace)
        before, reset_before = len(world.front.noted()), len(given_up(hgate))
        address = world.cluster.names.names[f"store.{namespace}.{SUFFIX}"]
        with hgate_load.constant(web.place, asked, to=address, paths=PATHS) as load:
            ended = world.front.noted(before + ENDED, timeout=10 * LIMIT)[before:]
        assert load.failures == []
        reset = [request for request in ended if request["details"] == RESET]
        processes.wait_until(
            lambda: len(given_up(hgate)) - reset_before >= len(reset), what="it was the caller who has reset it"
        )
    # Each was given up by the caller's proxy before the front would have ended it: in order, or, one in some 300, by a
    # reset of its own.
    assert {request["details"] for request in ended} <= {"via_upstream", RESET}
    assert len(reset) <= 1
    assert max(request["duration_ms"] for request in ended) < LIMIT * 1000


def test_no_request_fails_when_the_front_wants_other_connections_all_the_time(world: World) -> None:
    namespace = world.cluster.namespace()
    world.front.connection_life = 1.0
    with (
        world.cluster.pod("web", namespace=namespace) as web,
        world.workload("store", namespace=namespace) as store,
    ):
        url = f"https://{world.front.add('store', store.place)}"
        world.front.start()
        with world.gate(args=hgate_replica.static({f"store.{namespace}": url})) as gate:
            address = world.by_hand(store, gate, pools={"tcp": {"maxConnectionDuration": "2s"}})
            world.settle(store, gate, web)
            asked = f"http://store.{namespace}:8080/"
            with hgate_load.constant(web.place, asked, to=address, paths=PATHS) as load:
                processes.wait_until(
                    lambda: len({request["connection"] for request in world.front.requests}) >= 4,
                    what="tunnels have ended on four connections",
                    timeout=60,
                )
            assert load.failures == []
