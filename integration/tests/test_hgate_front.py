"""Cloud Run's front ends every request at its limit, tunnels too: calls of pods that run all the time lose nothing."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from krun_testbed import hgate_load, hgate_replica, hgate_world, processes
from krun_testbed.certificates import Authority
from krun_testbed.google_tokens import Issuer
from krun_testbed.hgate_world import World
from krun_testbed.mesh_cluster import Cluster
from krun_testbed.mesh_pod import Pod

pytestmark = [pytest.mark.mesh, pytest.mark.timeout(600)]

LIMIT = 20 if os.environ.get("KRUN_SOAK") else 6  # seconds
MARGIN = 3  # seconds that the longest request may take


@pytest.fixture
def world(cluster: Cluster, tmp_path: Path, authority: Authority, issuer: Issuer) -> Iterator[World]:
    with hgate_world.world(cluster, folder=tmp_path, authority=authority, issuer=issuer, limit=LIMIT) as made:
        yield made


PATHS = ["/", "/", "/sleep/0.5", "/"]


def test_no_request_fails_when_the_front_ends_every_tunnel_at_its_limit(world: World) -> None:
    with a_call(world, pools={"tcp": {"maxConnectionDuration": f"{LIMIT - MARGIN}s"}}) as (web, url, address):
        with hgate_load.constant(web.place, url, to=address, paths=PATHS) as load:
            ended = world.front.noted(8, timeout=10 * LIMIT)
        assert load.failures == []
    # Each was given up by the caller's proxy before the front would have ended it.
    assert {request["details"] for request in ended} == {"via_upstream"}
    assert max(request["duration_ms"] for request in ended) < LIMIT * 1000


def test_no_request_fails_when_the_front_wants_other_connections_all_the_time(world: World) -> None:
    world.front.connection_life = 1.0
    with a_call(world, pools={"tcp": {"maxConnectionDuration": "2s"}}) as (web, url, address):
        with hgate_load.constant(web.place, url, to=address, paths=PATHS) as load:
            processes.wait_until(
                lambda: len({request["connection"] for request in world.front.requests}) >= 4,
                what="tunnels have ended on four connections",
                timeout=60,
            )
        assert load.failures == []


@contextlib.contextmanager
def a_call(world: World, *, pools: Mapping[str, Any]) -> Iterator[tuple[Pod, str, str]]:
    """A pod, and what it calls at which address: a service that is reached by the gate."""
    namespace = world.cluster.namespace()
    with (
        world.cluster.pod("web", namespace=namespace) as web,
        world.workload("store", namespace=namespace) as store,
    ):
        url = f"https://{world.front.add('store', store.place)}"
        world.front.start()
        with world.gate(args=hgate_replica.static({f"store.{namespace}": url})) as gate:
            address = world.by_hand(store, gate, pools=pools)
            world.settle(store, gate, web)
            yield web, f"http://store.{namespace}:8080/", address
