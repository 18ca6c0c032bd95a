"""A container outside of the cluster is a member of a real mesh, with the right to capture and without any right."""

from __future__ import annotations

import concurrent.futures
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from krun_testbed import mesh_agent, mesh_container, mesh_gate, mesh_objects, mesh_pod
from krun_testbed.containers import Container
from krun_testbed.mesh_call import Answer
from krun_testbed.mesh_cluster import SUFFIX, Cluster
from krun_testbed.mesh_container import Contained
from krun_testbed.mesh_gate import Gate
from krun_testbed.mesh_pod import Pod

pytestmark = [pytest.mark.mesh, pytest.mark.containers, pytest.mark.timeout(600)]

WORLD, ADDRESS = "world.example", "203.0.113.81"
UNPRIVILEGED = "65532"
WAYS: dict[str, dict[str, Any]] = {
    "captured": {"cap_add": ["NET_ADMIN"]},
    "whitebox": {},
    "whitebox, a user without any right": {"cap_drop": ["ALL"], "user": UNPRIVILEGED},
}
# The order of the end that the man page promises.
STEPS = ["not ready", "no new tunnels", "envoy drains", "inbound at zero", "app ends", "tunnels close", "helpers end"]


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A namespace that takes mutual TLS only, with a pod, and a gate for whoever is outside."""

    cluster: Cluster
    namespace: str
    web: Pod
    gate: Gate

    def register(self, name: str, outside: Contained) -> None:
        """Lead pods that ask for this name to a container."""
        self.cluster.register(name, self.gate, namespace=self.namespace, account="outside")
        self.gate.lead(outside.place, mesh_gate.server_name(f"{name}.{self.namespace}.{SUFFIX}", 8080))
        mesh_pod.wait_until_served(self.web.place, self.gate.address)
        mesh_agent.wait_for_config(outside.place, "_15003")
        self.cluster.settle(self.web.place, outside.place, namespace=self.namespace)

    def call(self, name: str, path: str = "/") -> Answer:
        """One request of the pod's."""
        address = self.cluster.names.names[f"{name}.{self.namespace}.{SUFFIX}"]
        return self.web.call(f"http://{name}:8080{path}", to=address)


@pytest.fixture(scope="module")
def scene(engine: None, cluster: Cluster) -> Iterator[Scene]:
    namespace = cluster.namespace()
    cluster.kubernetes.service_account("outside", namespace=namespace)
    cluster.apply(mesh_objects.strict(), namespace=namespace)
    cluster.outside.names[WORLD] = ADDRESS
    with cluster.gate() as gate, cluster.pod("web", namespace=namespace) as web:
        yield Scene(cluster=cluster, namespace=namespace, web=web, gate=gate)


def logs(name: str) -> dict[str, Any]:
    """Each request is to be in the log of this workload's Envoy."""
    logging = {"selector": {"matchLabels": {"app": name}}, "accessLogging": [{"providers": [{"name": "envoy"}]}]}
    kind = {"apiVersion": "telemetry.istio.io/v1", "kind": "Telemetry"}
    return {**kind, "metadata": {"name": f"logs-{name}"}, "spec": logging}


def fetched(container: Container, url: str) -> dict[str, Any]:
    """What the pod's application saw of a request that the container's made."""
    answer = container.ask(f"/fetch?url={url}")
    assert answer["status"] == 200, answer
    seen: dict[str, Any] = json.loads(str(answer["body"]))
    return seen


def looked_up(container: Container, name: str) -> object:
    """The addresses that the container's application finds for a name, or why there are none."""
    answer = container.ask(f"/name?name={name}")
    return answer.get("addresses", answer.get("why"))


@pytest.mark.parametrize("way", WAYS)
def test_a_container_and_a_pod_call_each_other_by_mutual_tls_and_it_ends_in_order(scene: Scene, way: str) -> None:
    name = f"a{list(WAYS).index(way)}"
    options = {"env": {"STATUS": "7"}, **WAYS[way]}
    scene.cluster.apply(logs(name), namespace=scene.namespace)
    with mesh_container.contained(scene.cluster, name, namespace=scene.namespace, account="outside", **options) as a:
        said = [each["mode"] for each in a.container.messages() if each["message"] == "ready"]
        assert said == [way.partition(",")[0]]
        if "user" in options:
            assert {(each.uid, each.effective) for each in a.container.processes()} == {(int(UNPRIVILEGED), 0)}
        mesh_pod.wait_until_served(a.place, scene.web.place.address)
        space = scene.namespace
        for form in ("web", f"web.{space}", f"web.{space}.svc", f"web.{space}.{SUFFIX}"):
            seen = fetched(a.container, f"http://{form}:8080/out")
            assert seen["name"] == "web"
            assert f"URI={a.identity}" in seen["headers"]["x-forwarded-client-cert"]
            assert f"By={scene.web.identity}" in seen["headers"]["x-forwarded-client-cert"]
        scene.register(name, a)
        answer = scene.call(name, "/in")
        assert (answer.status, answer.identities) == (200, (scene.web.identity, a.identity))
        # What Envoy says is in the container's log.
        a.container.wait_for(r'"GET /in HTTP/1\.1" 200')
        if way == "captured":
            a.container.wait_for(r'"GET /out HTTP/1\.1" 200')
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            slow = pool.submit(scene.call, name, "/slow/1.5")
            a.container.wait_for("^slow begins$")
            assert a.container.stop() == 7
            assert slow.result().status == 200
        # The application's request had ended before it was told to stop.
        assert a.container.stdout.split("\n")[-5:] == ["app listens", "slow begins", "slow ends", "app stops", ""]
        ended = a.container.messages()
        assert [each["step"] for each in ended if each["message"] == "end step done"] == STEPS
        assert (ended[-1]["message"], ended[-1]["status"]) == ("ended", 7)


def test_captured_in_a_network_of_dockers_names_of_the_mesh_of_docker_and_of_the_world_are_found(scene: Scene) -> None:
    """There the name server is 127.0.0.11, and Docker's rule is before any other."""
    space = scene.namespace
    with (
        mesh_container.docker_network() as network,
        mesh_container.contained(
            scene.cluster, "d", namespace=space, account="outside", network=network, cap_add=["NET_ADMIN"]
        ) as d,
    ):
        before = d.holder.exec("cat", "/etc/resolv.conf").stdout
        assert "#| nameserver 127.0.0.11\n" in before
        mesh_pod.wait_until_served(d.place, scene.web.place.address)
        for form in ("web", f"web.{space}", f"web.{space}.svc", f"web.{space}.{SUFFIX}"):
            seen = fetched(d.container, f"http://{form}:8080/")
            assert f"URI={d.identity}" in seen["headers"]["x-forwarded-client-cert"]
        assert looked_up(d.container, "holder") == [d.holder.address(network)]
        assert looked_up(d.container, WORLD) == [ADDRESS]
        assert "not known" in str(looked_up(d.container, "nobody.example"))
        scene.register("d", d)
        assert scene.call("d").identities == (scene.web.identity, d.identity)
        assert d.container.stop() == 0
        # The file is the holder's too, as it was.
        assert d.holder.exec("cat", "/etc/resolv.conf").stdout == "nameserver 127.0.0.11\noptions ndots:0\n"
