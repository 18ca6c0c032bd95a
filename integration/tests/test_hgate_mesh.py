"""A pod's plain call reaches an application behind Cloud Run's front through hgate, by mutual TLS, in a real mesh."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from string import Template
from typing import Any

import pytest
import yaml

from krun_testbed import (
    google_api,
    google_api_run,
    hgate_deployment,
    hgate_front,
    hgate_installed,
    hgate_replica,
    hgate_world,
    mesh_cluster,
    processes,
    tables,
)
from krun_testbed.certificates import Authority
from krun_testbed.google_tokens import Issuer
from krun_testbed.hgate_installed import Installed
from krun_testbed.hgate_world import World
from krun_testbed.kubernetes_client import ApiError
from krun_testbed.mesh_cluster import Cluster
from krun_testbed.mesh_network import Place
from krun_testbed.mesh_workload import Workload

pytestmark = [pytest.mark.mesh, pytest.mark.timeout(600)]

TEMPLATE = tables.ROOT / "manifests" / "sni-service-template.yaml"
CALLS = 1000
# The seed's, to the letter but for the namespace and the names of the two services.
SPLIT = """
apiVersion: v1
kind: Service
metadata:
  name: myservice
  namespace: $namespace
spec:
  ports:
    - port: 8080
      name: http
      targetPort: 15443
---
apiVersion: networking.istio.io/v1alpha3
kind: VirtualService
metadata:
  name: myservice
  namespace: $namespace
spec:
  hosts:
    - myservice
    - myservice.$namespace.svc
  http:
    - route:
        # Use the actual CR service.
        - destination:
            host: $first
          weight: 25
        - destination:
            host: $second
          weight: 75
"""

# The API server takes a service's address from any of its two ranges, and one of them is outside of 10.0.0.0/8.
ALL_SERVICES = {"OUTBOUND_IP_RANGES_INCLUDE": f"10.0.0.0/8,{mesh_cluster.FURTHER}"}

LISTED = Template("""
namespaces: {"*": {projects: [own]}}
cloudRun: [{project: demo-project, regions: [$regions]}]
""")


@pytest.fixture(scope="module")
def world(
    cluster: Cluster, tmp_path_factory: pytest.TempPathFactory, authority: Authority, issuer: Issuer
) -> Iterator[World]:
    folder: Path = tmp_path_factory.mktemp("google")
    with hgate_world.world(cluster, folder=folder, authority=authority, issuer=issuer) as made:
        yield made


@pytest.fixture(scope="module")
def installed(world: World) -> Iterator[Installed]:
    with hgate_installed.installed(world) as made:
        yield made


@pytest.fixture
def hgate(installed: Installed) -> Installed:
    """With the policy of the manifests."""
    installed.policy(hgate_deployment.policy())
    return installed


def declared(name: str, url: str, **spec: Any) -> dict[str, Any]:
    """All that a user writes."""
    metadata = {"name": name, "annotations": {"hgate.krun/url": url}}
    ports = [{"name": "http", "port": 8080}]
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {"ports": ports, **spec}}


@pytest.mark.parametrize("selector", [{}, {"selector": {"any": "thing"}}], ids=["without selector", "with selector"])
def test_one_annotated_service_is_all_that_a_user_writes(hgate: Installed, selector: dict[str, Any]) -> None:
    world = hgate.world
    namespace = world.cluster.namespace()
    with (
        world.cluster.pod("web", namespace=namespace) as web,
        world.workload("store", namespace=namespace) as store,
    ):
        url = f"https://{world.front.add('store', store.place)}"
        world.front.start()
        user = hgate.user(namespace)
        user.apply(declared("store", url, **selector), namespace=namespace)
        answer = hgate.reaches(web.place, f"http://store.{namespace}:8080/")
        assert answer.by == "store"
        assert answer.identities == (web.identity, store.identity)
        assert set(world.audiences) == {url}
        for name in ("store", f"store.{namespace}.svc", f"store.{namespace}.svc.cluster.local"):
            assert hgate.curl(web.place, f"http://{name}:8080/").by == "store"
        # What is no longer declared is taken away, and nothing leads there.
        assert hgate.objects(namespace)
        user.delete(f"/api/v1/namespaces/{namespace}/services/store")
        hgate.wait_until_gone(namespace)
        gone_by_name(hgate, web.place, f"store.{namespace}.svc.cluster.local")


def test_the_seeds_template_alone_leads_to_a_service_by_the_first_label_of_its_url(hgate: Installed) -> None:
    world = hgate.world
    namespace = world.cluster.namespace()
    world.cluster.kubernetes.service_account("outside", namespace=namespace)
    hgate.policy(yaml.safe_dump({"namespaces": {namespace: {"hashes": [hgate_front.HASH]}}}))
    with (
        world.cluster.pod("web", namespace=namespace) as web,
        world.workload("cloudrun", namespace=namespace, account="outside") as outside,
    ):
        host = world.front.add("cloudrun", outside.place, host=hgate_front.hashed("cloudrun"))
        world.front.start()
        service = host.removesuffix(".a.run.app")
        user = hgate.user(namespace)
        made = user.apply(by_template(service, outside, gate=hgate.address), namespace=namespace)
        answer = hgate.reaches(web.place, f"http://{service}.{namespace}.svc:8080/")
        assert answer.by == "cloudrun"
        assert answer.identities == (web.identity, outside.identity)
        assert world.audiences[-1] == f"https://{host}"
        assert hgate.objects(namespace) == []
        # All of it is the user's: so is its end.
        for item in made:
            user.delete(user.path_of(item))
        gone_by_name(hgate, web.place, f"{service}.{namespace}.svc.cluster.local")


def by_template(service: str, workload: Workload, *, gate: str) -> str:
    """The template, by envsubst with the seed's variables."""
    return Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        K_SERVICE=service,
        WORKLOAD_NAME=workload.name,
        WORKLOAD_NAMESPACE=workload.namespace,
        WORKLOAD_SERVICE_ACCOUNT=workload.account,
        SNI_GATE_IP=gate,
    )


def gone_by_name(hgate: Installed, place: Place, host: str) -> None:
    """Who asks the gate for the name is let go: there is no route any more."""
    name = f"outbound_.8080_._.{host}"
    processes.wait_until(lambda: hgate.hello(place, name) == b"", what=f"{name} leads nowhere", timeout=60, poll=0.1)


def test_a_service_that_cloud_run_lists_for_a_namespace_needs_no_object_of_anybody(hgate: Installed) -> None:
    world = hgate.world
    namespace = world.cluster.namespace()
    project = google_api.PROJECT
    with (
        world.cluster.pod("web", namespace=namespace) as web,
        world.workload("listed", namespace=namespace) as listed,
    ):
        world.front.add("listed", listed.place)
        world.front.add("listed", listed.place, host=hgate_front.hashed("listed"))
        world.front.start()
        row = google_api_run.service("listed", project=project.id, number=project.number, namespace=namespace)
        world.google.run.services[project.id] = [row]
        hgate.policy(LISTED.substitute(regions="us-central1"))
        answer = hgate.reaches(web.place, f"http://listed.{namespace}:8080/")
        assert answer.by == "listed"
        assert answer.identities == (web.identity, listed.identity)
        # It is gone at the next look, which another region brings forward.
        world.google.run.services[project.id] = []
        hgate.policy(LISTED.substitute(regions="us-central1, us-east1"))
        hgate.wait_until_gone(namespace)
        gone_by_name(hgate, web.place, f"listed.{namespace}.svc.cluster.local")


def test_a_user_of_a_namespace_can_do_nothing_in_another(hgate: Installed) -> None:
    world = hgate.world
    namespace, other = world.cluster.namespace(), world.cluster.namespace()
    user = hgate.user(namespace)
    service = declared("closed", f"https://{hgate_front.deterministic('closed')}")
    user.apply(service, namespace=namespace)
    for attempt in (
        lambda: user.apply(service, namespace=other),
        lambda: user.apply(service, namespace="istio-system"),
        lambda: user.get(f"/apis/networking.istio.io/v1/namespaces/{other}/workloadentries"),
        lambda: user.get("/api/v1/namespaces/istio-system/configmaps/hgate-policy"),
        lambda: user.get("/api/v1/services"),
    ):
        with pytest.raises(ApiError) as refused:
            attempt()
        assert refused.value.status == 403


def test_one_cloud_run_service_calls_another_by_its_name_in_the_mesh(hgate: Installed) -> None:
    world = hgate.world
    namespace = world.cluster.namespace()
    for account in ("caller", "called"):
        world.cluster.kubernetes.service_account(account, namespace=namespace)
    with (
        world.workload("caller", namespace=namespace, account="caller", env=ALL_SERVICES) as caller,
        world.workload("called", namespace=namespace, account="called") as called,
    ):
        url = f"https://{world.front.add('called', called.place)}"
        world.front.start()
        service = declared("called", url)
        service["metadata"]["annotations"]["hgate.krun/service-account"] = "called"
        hgate.user(namespace).apply(service, namespace=namespace)
        answer = hgate.reaches(caller.place, f"http://called.{namespace}:8080/")
        assert answer.by == "called"
        assert answer.identities == (caller.identity, called.identity)


def test_the_seeds_virtual_service_shares_calls_out_between_two_services(hgate: Installed) -> None:
    world = hgate.world
    namespace = world.cluster.namespace()
    with (
        world.cluster.pod("web", namespace=namespace) as web,
        world.workload("cloudrun", namespace=namespace) as first,
        world.workload("cloudrun2", namespace=namespace) as second,
    ):
        user = hgate.user(namespace)
        for workload in (first, second):
            url = f"https://{world.front.add(workload.name, workload.place)}"
            user.apply(declared(workload.name, url), namespace=namespace)
        world.front.start()
        text = Template(SPLIT).substitute(namespace=namespace, first=first.name, second=second.name)
        user.apply(text, namespace=namespace)
        for name in ("cloudrun", "cloudrun2", "myservice"):
            hgate.reaches(web.place, f"http://{name}:8080/")
        file = web.place.folder / "urls"
        file.write_text('url = "http://myservice:8080/"\n' * CALLS)
        counts = Counter(hgate.names_by_curl(web.place, file))
    assert set(counts) == {"cloudrun", "cloudrun2"}
    assert counts.total() == CALLS
    # Of 1,000 draws with a chance of a quarter, fewer than one series in 10,000 is farther off.
    assert 195 < counts["cloudrun"] < 305


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
        assert world.audiences[-1] == url
        assert {(request["host"], request["email"]) for request in world.front.noted()} >= {
            (url.removeprefix("https://"), hgate_world.ACCOUNT)
        }
