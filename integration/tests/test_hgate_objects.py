"""The objects that hgate decides lead a pod's call to a workload outside, in a real mesh, for Services of any shape."""

from __future__ import annotations

import contextlib
import functools
import http.client
import json
import ssl
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from hgate.register import Mesh, following
from krun_testbed import mesh_agent, mesh_call, mesh_gate, mesh_pod, mesh_workload
from krun_testbed.mesh_captured import until
from krun_testbed.mesh_cluster import SUFFIX, Cluster
from krun_testbed.mesh_gate import Gate
from krun_testbed.mesh_pod import Pod
from krun_testbed.mesh_workload import Workload

pytestmark = [pytest.mark.mesh, pytest.mark.timeout(300)]

URL = "https://web-123456789.us-central1.run.app"
EUROPE = "https://web-123456789.europe-west1.run.app"
CALLS = 300
WEBHOOK = 15017  # istiod's
NAMED = ("http", "http2", "grpc", "grpc-web", "tcp", "redis", "https", "web")
SHAPES: dict[str, dict[str, Any]] = {
    "with a selector": {"ports": [{"name": "http", "port": 8080}], "selector": {"app": "web"}},
    "without a selector": {"ports": [{"name": "http", "port": 8080}]},
    "a port without a name": {"ports": [{"port": 8080}], "selector": {"app": "web"}},
    "a target port by name": {"ports": [{"name": "http", "port": 8080, "targetPort": "web"}], "selector": {"app": "x"}},
    "two ports": {
        "ports": [
            {"name": "http", "port": 8080},
            {"name": "tcp-raw", "port": 9000, "targetPort": 8080},
        ],
        "selector": {"app": "web"},
    },
    "port 80, by appProtocol": {
        "ports": [{"name": "web", "port": 80, "targetPort": 8080, "appProtocol": "http"}],
        "selector": {"app": "web"},
    },
}


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A pod, a workload outside whose account is ``outside``, and a gate between them."""

    cluster: Cluster
    namespace: str
    gate: Gate
    pod: Pod
    outside: Workload

    def register(self, name: str, spec: dict[str, Any], *, url: str = URL, account: str = "outside") -> str:
        """Make a Service and what follows from its annotation; its address."""
        annotations = {"hgate.krun/url": url, "hgate.krun/service-account": account}
        service = {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": name, "annotations": annotations},
            "spec": spec,
        }
        (made,) = self.cluster.apply(service, namespace=self.namespace)
        mesh = Mesh(gate=self.gate.address, trust_domain="cluster.local")
        self.cluster.apply(*following(made, mesh), namespace=self.namespace)
        self.cluster.settle(self.pod.place, self.outside.place, namespace=self.namespace)
        mesh_pod.wait_until_served(self.pod.place, self.gate.address)
        mesh_agent.wait_for_config(self.outside.place, "_15003")
        address: str = made["spec"]["clusterIP"]
        return address

    def lead(self, *names: str, port: int) -> None:
        """Let the gate know these services."""
        hosts = [f"{name}.{self.namespace}.{SUFFIX}" for name in names]
        self.gate.lead(self.outside.place, *(mesh_gate.server_name(host, port) for host in hosts))


@pytest.fixture
def scene(cluster: Cluster) -> Iterator[Scene]:
    namespace = cluster.namespace()
    for account in ("outside", "other"):
        cluster.kubernetes.service_account(account, namespace=namespace)
    with contextlib.ExitStack() as stack:
        gate = stack.enter_context(cluster.gate())
        pod = stack.enter_context(cluster.pod("pod", namespace=namespace))
        outside = stack.enter_context(mesh_workload.workload(cluster, "web", namespace=namespace, account="outside"))
        yield Scene(cluster=cluster, namespace=namespace, gate=gate, pod=pod, outside=outside)


def test_a_call_to_a_service_of_any_shape_reaches_the_workload_by_mutual_tls(scene: Scene) -> None:
    for number, spec in enumerate(SHAPES.values()):
        name = f"web-{number}"
        port = spec["ports"][0]["port"]
        scene.lead(name, port=port)
        address = scene.register(name, spec)
        answer = scene.pod.call(f"http://{name}:{port}/", to=address)
        assert (name, answer.by) == (name, "web")
        assert answer.identities == (scene.pod.identity, scene.outside.identity)


def test_a_workload_with_another_identity_is_not_called(scene: Scene) -> None:
    for number, shape in enumerate(("with a selector", "without a selector")):
        name = f"wrong-{number}"
        scene.lead(name, port=8080)
        address = scene.register(name, SHAPES[shape], account="other")
        assert scene.pod.call(f"http://{name}:8080/", to=address).status == 503
        # It came as far as the other's certificate: all else is right.
        assert any(asked.startswith(f"outbound_.8080_._.{name}.") for asked in scene.gate.names)
        scene.register(name, SHAPES[shape], account="outside")
        until(200, functools.partial(scene.pod.call, f"http://{name}:8080/", to=address))


def test_istiods_own_validation_takes_every_object(cluster: Cluster) -> None:
    ports = [{"name": name, "port": number, "targetPort": 8080} for number, name in enumerate(NAMED, start=8000)]
    for spec in [*SHAPES.values(), {"ports": ports, "selector": {"app": "web"}}]:
        for url in (URL, f"{URL}=25 {EUROPE}=75", f"{URL}=0 {EUROPE}=1"):
            metadata = {"name": "web", "namespace": "demo", "annotations": {"hgate.krun/url": url}}
            service = {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}
            for item in following(service, Mesh(gate="10.1.2.3", trust_domain="cluster.local")):
                if "istio.io" in item["apiVersion"]:
                    assert validated(cluster, item) == (True, ""), item
    broken = {**item, "spec": {"hosts": ["web"], "http": [{"route": [{"destination": {}}]}]}}
    assert validated(cluster, broken)[0] is False


def validated(cluster: Cluster, item: dict[str, Any]) -> tuple[bool, str]:
    """What istiod's webhook says of an object, as the API server would ask it."""
    group, _, version = item["apiVersion"].partition("/")
    request = {
        "uid": "1",
        "kind": {"group": group, "version": version, "kind": item["kind"]},
        "operation": "CREATE",
        "name": item["metadata"]["name"],
        "namespace": item["metadata"]["namespace"],
        "object": item,
    }
    review = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    connection = http.client.HTTPConnection("localhost")
    with context.wrap_socket(cluster.network.hub.connect("127.0.0.1", WEBHOOK)) as connected:
        connection.sock = connected
        connection.request("POST", "/validate", json.dumps(review), {"Content-Type": "application/json"})
        answer = json.loads(connection.getresponse().read())["response"]
    return answer["allowed"], answer.get("status", {}).get("message", "")


def test_calls_of_one_name_are_shared_over_its_urls_by_weight(scene: Scene) -> None:
    scene.lead("shop-web-us-central1", "shop-web-europe-west1", port=8080)
    address = scene.register("shop", SHAPES["without a selector"], url=f"{URL}=25 {EUROPE}=75")
    until(200, lambda: scene.pod.call("http://shop:8080/", to=address))
    scene.gate.names.clear()
    for _ in range(CALLS):
        assert scene.pod.call("http://shop:8080/", to=address).by == "web"
    counts = clusters(scene)
    assert counts.total() >= CALLS
    # Of 300 draws with a chance of a quarter, fewer than one series in 10,000 is farther off.
    assert 0.15 < counts["shop-web-us-central1"] / counts.total() < 0.36


def clusters(scene: Scene) -> Counter[str]:
    """How often each service was called, as the pod's Envoy counts."""
    text = mesh_call.admin(scene.pod.place, "/clusters?format=json").body
    found: Counter[str] = Counter()
    for cluster in json.loads(text)["cluster_statuses"]:
        _, _, _, host = (cluster["name"].split("|") + [""] * 4)[:4]
        for endpoint in cluster.get("host_statuses", []):
            for stat in endpoint["stats"]:
                if stat["name"] == "rq_total" and host.startswith("shop-web-"):
                    found[host.partition(".")[0]] += int(stat.get("value", 0))
    return found
