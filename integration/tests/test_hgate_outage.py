"""While the API server is gone, calls of pods go on; when it is back, what has changed is done, and nothing else."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from krun_testbed import hgate_front, hgate_installed, hgate_load, hgate_world, istio_build, mesh_cluster, processes
from krun_testbed import kubernetes as kubernetes_api
from krun_testbed.certificates import Authority
from krun_testbed.google_tokens import Issuer
from krun_testbed.hgate_installed import Installed
from krun_testbed.hgate_load import Load
from krun_testbed.hgate_world import World
from krun_testbed.kubernetes import Kubernetes
from krun_testbed.kubernetes_client import ApiError
from krun_testbed.mesh_cluster import SUFFIX, Cluster

pytestmark = [pytest.mark.mesh, pytest.mark.timeout(600)]

DURING = 200  # calls that are made while it is gone


def test_routes_stay_while_the_api_server_is_out_of_reach_and_changes_are_done_after_it(
    cluster: Cluster, tmp_path: Path, authority: Authority, issuer: Issuer
) -> None:
    with (
        hgate_world.world(cluster, folder=tmp_path, authority=authority, issuer=issuer) as world,
        called(world) as made,
    ):
        hgate, namespace, load = made
        user, door = hgate.user(namespace), world.doors["kubernetes"]
        before = hgate.identities(namespace, "store")
        assert before
        door.close()
        hgate.gate.wait_for("Kubernetes API out of reach")
        # Others reach it: what they change now, hgate hears of later.
        user.delete(f"/api/v1/namespaces/{namespace}/services/second")
        user.apply(declared("third"), namespace=namespace)
        count = load.done
        processes.wait_until(lambda: load.done > count + DURING, what="calls go on", timeout=60)
        assert hgate.gate.status("/healthz/ready").status == 200
        door.open()
        hgate.wait_until_written(namespace, "third")
        processes.wait_until(
            lambda: not hgate.identities(namespace, "second"), what="second is taken away", timeout=60, poll=0.2
        )
        # When all of it is in touch again: who has failed often waits longer.
        hgate.gate.wait_for("Kubernetes API answers again", timeout=90)
        assert hgate.identities(namespace, "store") == before
        assert load.failures == []


def test_nothing_is_lost_when_the_api_server_is_killed_and_started_again(
    tmp_path: Path, authority: Authority, issuer: Issuer
) -> None:
    version = istio_build.version_of(istio_build.chosen()[0])
    with (
        kubernetes_api.running() as kubernetes,
        contextlib.ExitStack() as second,
        mesh_cluster.running(kubernetes, version=version) as cluster,
        hgate_world.world(cluster, folder=tmp_path, authority=authority, issuer=issuer) as world,
        called(world) as made,
    ):
        hgate, namespace, load = made
        before = hgate.identities(namespace, "store")
        second.enter_context(restarted(kubernetes))
        count = load.done
        hgate.user(namespace).apply(declared("third"), namespace=namespace)
        hgate.wait_until_written(namespace, "third")
        processes.wait_until(lambda: load.done > count + DURING, what="calls go on", timeout=60)
        assert hgate.identities(namespace, "store") == before
        assert load.failures == []


@contextlib.contextmanager
def called(world: World) -> Iterator[tuple[Installed, str, Load]]:
    """hgate with two declared services, of which a pod calls one all the time."""
    namespace = world.cluster.namespace()
    with (
        hgate_installed.installed(world) as hgate,
        world.cluster.pod("web", namespace=namespace) as web,
        world.workload("store", namespace=namespace) as store,
    ):
        world.front.add("store", store.place)
        world.front.start()
        for name in ("store", "second"):
            hgate.user(namespace).apply(declared(name), namespace=namespace)
        url = f"http://store.{namespace}:8080/"
        hgate.reaches(web.place, url)
        hgate.wait_until_written(namespace, "second")
        address = world.cluster.names.names[f"store.{namespace}.{SUFFIX}"]
        with hgate_load.constant(web.place, url, to=address, clients=2) as load:
            yield hgate, namespace, load


def declared(name: str) -> Mapping[str, Any]:
    annotations = {"hgate.krun/url": f"https://{hgate_front.deterministic(name)}"}
    metadata = {"name": name, "annotations": annotations}
    spec = {"ports": [{"name": "http", "port": 8080}]}
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}


@contextlib.contextmanager
def restarted(kubernetes: Kubernetes) -> Iterator[None]:
    """The API server killed, and another one in its place, on the same store; it ends with the block."""
    old = kubernetes.server.apiserver
    old.signal(signal.SIGKILL)
    old.ends(timeout=processes.WAIT)
    environment = {"HOME": str(kubernetes.directory), "PATH": os.defpath}
    argv = list(old.process.args)  # type: ignore[arg-type]
    with processes.start(argv, env=environment, cwd=kubernetes.directory) as running:

        def is_ready() -> bool:
            if running.ends(timeout=0):
                raise AssertionError(f"kube-apiserver ended\n{running.said()[-3000:]}")
            with contextlib.suppress(ApiError, OSError, ValueError):
                return kubernetes.admin.get("/readyz") == "ok"
            return False

        processes.wait_until(is_ready, what="kube-apiserver is ready again", timeout=60, poll=0.1)
        try:
            yield
        finally:
            running.signal(signal.SIGKILL)
