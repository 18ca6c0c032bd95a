"""hgate works with the rights of manifests/ and no other; without one of them its log says which is missing."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from krun_testbed import hgate_deployment, hgate_front, hgate_installed, hgate_world, istiod, processes
from krun_testbed.certificates import Authority
from krun_testbed.google_tokens import Issuer
from krun_testbed.hgate_installed import Installed
from krun_testbed.hgate_roles import Right
from krun_testbed.hgate_world import World
from krun_testbed.kubernetes_client import ApiError, Client
from krun_testbed.mesh_cluster import Cluster

pytestmark = [pytest.mark.mesh, pytest.mark.timeout(600)]

LAST = 120.0  # seconds until a step has been done, or its missing right is said
# Cloud Run's own list is looked at, too: only then is it known that nobody has a claim any more.
POLICY = """
namespaces: {"*": {projects: [own]}}
cloudRun: [{project: demo-project, regions: [us-central1]}]
"""
STARTED = '"message": "(ready|not permitted)"'
CLAIMS = f"/api/v1/namespaces/{istiod.NAMESPACE}/configmaps/hgate-claims"
NETWORKING, SECURITY = "networking.istio.io/v1", "security.istio.io/v1"


@pytest.fixture(scope="module")
def world(
    cluster: Cluster, tmp_path_factory: pytest.TempPathFactory, authority: Authority, issuer: Issuer
) -> Iterator[World]:
    folder: Path = tmp_path_factory.mktemp("google")
    with hgate_world.world(cluster, folder=folder, authority=authority, issuer=issuer) as made:
        yield made


def chosen() -> list[Right]:
    """All of them; as each takes its time, here only some."""
    rights = hgate_deployment.rights()
    return rights if os.environ.get("KRUN_SOAK") else rights[::14]


@pytest.mark.parametrize("right", chosen(), ids=str)
def test_without_a_right_the_log_says_which(world: World, right: Right) -> None:
    namespace = world.cluster.namespace()
    with hgate_installed.installed(world, policy=POLICY, without=right, until=STARTED) as hgate:
        life = Life(hgate=hgate, namespace=namespace)

        def is_said() -> bool:
            return bool(hgate.gate.said("not permitted", verb=right.verb))

        for step in life.steps():
            life.wait(step(), step.__name__, unless=is_said)
            if is_said():
                break
        assert is_said(), f"it is not needed, as it seems\n{hgate.told()}"
        lines = hgate.gate.said("not permitted")
        assert {(line["verb"], line["resource"].rpartition("/")[2]) for line in lines} == {(right.verb, right.spelled)}
        assert all(line["severity"] == "WARNING" and line["hint"] for line in lines)
        assert hgate.gate.status("/healthz/live").status == 200


@dataclass(kw_only=True)
class Life:
    """A life of declarations, in which each right is needed once. Each step tells when it has been done."""

    hgate: Installed
    namespace: str
    taken: list[str] = field(default_factory=list)  # where objects of people's are
    marks: list[str] = field(default_factory=list)

    def steps(self) -> list[Callable[[], Callable[[], bool]]]:
        return [
            self.names_are_taken,
            self.names_are_free,
            self.ports_and_weights_change,
            self.a_workload_is_another,
            self.a_workload_has_two_services,
            self.one_url_is_left,
            self.a_port_is_renamed,
            self.a_map_declares,
            self.a_load_balancer_moves,
            self.one_is_refused,
            self.a_map_is_gone,
            self.all_is_gone,
        ]

    def names_are_taken(self) -> Callable[[], bool]:
        """People have made all that hgate is about to make."""
        others = {"labels": {"app": "others"}}
        share = {"route": [{"destination": {"host": "elsewhere.example"}}]}
        self._take("discovery.k8s.io/v1", "EndpointSlice", "taken-hgate", addressType="IPv4", endpoints=[], ports=[])
        self._take(NETWORKING, "DestinationRule", "taken", spec={"host": "elsewhere.example"})
        self._take(NETWORKING, "Sidecar", "one", spec={"workloadSelector": others, "egress": [{"hosts": ["*/*"]}]})
        self._take(NETWORKING, "WorkloadEntry", "store-one-us-central1", spec={"address": "192.0.2.1"})
        self._take(NETWORKING, "VirtualService", "store", spec={"hosts": ["elsewhere.example"], "http": [share]})
        self._take(SECURITY, "PeerAuthentication", "one", spec={"selector": {"matchLabels": {"app": "others"}}})
        self._take("v1", "ConfigMap", "hgate-claims", namespace=istiod.NAMESPACE, data={})
        self._declare("taken", url("one"))
        self._declare("store", f"{url('one')}=50 {url('two')}=50")
        return self._mark()

    def names_are_free(self) -> Callable[[], bool]:
        """All of it is gone again, and hgate makes its own."""
        while self.taken:
            self._admin.delete(self.taken.pop())
        self._user.delete(f"/api/v1/namespaces/{self.namespace}/services/taken")
        return self._mark()

    def ports_and_weights_change(self) -> Callable[[], bool]:
        self._declare("store", f"{url('one')}=20 {url('two')}=80", port=8081, timeout="100")
        return self._mark()

    def a_workload_is_another(self) -> Callable[[], bool]:
        self._declare("store", f"{url('one')}=20 {url('two')}=80", port=8081, timeout="100", workload="other")
        return self._mark()

    def a_workload_has_two_services(self) -> Callable[[], bool]:
        self._declare("more", url("three"), workload="other")
        return self._mark()

    def one_url_is_left(self) -> Callable[[], bool]:
        self._declare("store", url("one"))
        return lambda: "EndpointSlice/store-hgate" in self._written() and "VirtualService/store" not in self._written()

    def a_port_is_renamed(self) -> Callable[[], bool]:
        self._declare("store", url("one"), name="http-web")
        return self._mark()

    def a_map_declares(self) -> Callable[[], bool]:
        self.hgate.world.cluster.kubernetes.config_map("hgate", {"mapped": url("mapped")}, namespace=self.namespace)
        return lambda: "WorkloadEntry/mapped" in self._written()

    def a_load_balancer_moves(self) -> Callable[[], bool]:
        hgate_deployment.balanced(self.hgate.world.cluster.kubernetes, hgate_deployment.PUBLIC, "203.0.113.43")
        return lambda: "203.0.113.43" in str(self._admin.get(f"{hgate_installed.SYSTEM}/configmaps/mesh-env"))

    def one_is_refused(self) -> Callable[[], bool]:
        self._declare("refused", "http://refused.example")
        return lambda: bool(self.hgate.events(self.namespace, name="refused"))

    def a_map_is_gone(self) -> Callable[[], bool]:
        self._user.delete(f"/api/v1/namespaces/{self.namespace}/configmaps/hgate")
        return lambda: not [each for each in self._written() if each.endswith("/mapped")]

    def all_is_gone(self) -> Callable[[], bool]:
        for name in ("store", "more", *self.marks):
            self._user.delete(f"/api/v1/namespaces/{self.namespace}/services/{name}")
        return self._is_forgotten

    def _is_forgotten(self) -> bool:
        try:
            self._admin.get(CLAIMS)
        except ApiError as error:
            return error.status == 404 and not self._written()
        return False

    def wait(self, is_done: Callable[[], bool], what: str, *, unless: Callable[[], bool]) -> None:
        """Wait until a step is done, or cannot be."""
        try:
            processes.wait_until(lambda: unless() or is_done(), what=what, timeout=LAST, poll=0.05)
        except AssertionError as error:
            raise AssertionError(f"{error}: {self._written()}\n{self.hgate.told()}") from error

    @property
    def _admin(self) -> Client:
        return self.hgate.world.cluster.kubernetes.admin

    @property
    def _user(self) -> Client:
        return self.hgate.user(self.namespace)

    def _written(self) -> list[str]:
        return self.hgate.objects(self.namespace)

    def _mark(self) -> Callable[[], bool]:
        """One more declaration: as the youngest it is written last, after all that was declared before it."""
        name = f"mark-{len(self.marks)}"
        self.marks.append(name)
        self._declare(name, url(name), selector={"app": name})
        return lambda: f"WorkloadEntry/{name}" in self._written()

    def _declare(
        self, service: str, urls: str, *, port: int = 8080, name: str = "http", selector: Any = None, **said: str
    ) -> None:
        annotations = {"hgate.krun/url": urls, **{f"hgate.krun/{key}": value for key, value in said.items()}}
        spec = {"ports": [{"name": name, "port": port}], **({"selector": selector} if selector else {})}
        metadata = {"name": service, "annotations": annotations}
        made = {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}
        self._user.apply(made, namespace=self.namespace)

    def _take(self, version: str, kind: str, name: str, *, namespace: str = "", **parts: Any) -> None:
        namespace = namespace or self.namespace
        made = {"apiVersion": version, "kind": kind, "metadata": {"name": name, "namespace": namespace}, **parts}
        self._admin.apply(made, namespace=namespace)
        self.taken.append(self._admin.path_of(made))


def url(name: str) -> str:
    return f"https://{hgate_front.deterministic(name)}"
