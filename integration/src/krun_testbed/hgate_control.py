"""hgate's control process beside a real API server that knows Istio's kinds, and no mesh: by its manifests' rights."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from krun_testbed import hgate_deployment, hgate_roles, hgate_rounds, processes
from krun_testbed.addresses import free_port, loopback
from krun_testbed.certificates import write
from krun_testbed.hgate_roles import Right
from krun_testbed.kubernetes import Kubernetes
from krun_testbed.kubernetes_client import ApiError
from krun_testbed.kubernetes_door import Door
from krun_testbed.kubernetes_kubeconfig import by_token, kubeconfig
from krun_testbed.processes import Running

SYSTEM = "istio-system"
ACCOUNT = "hgate"
PROJECT = {"PROJECT_ID": "demo-project", "PROJECT_NUMBER": "123456789"}
CONFIG_MAPS = ("mesh-env", "hgate-policy", "hgate-claims", "istio-ca-root-cert", "istio", "env-asm-managed")


@dataclass(frozen=True, kw_only=True)
class Replica:
    """One that runs: where it listens, and where it tells how it is."""

    running: Running
    address: str
    port: int
    status_port: int

    @property
    def lines(self) -> list[dict[str, Any]]:
        """What it logged."""
        return [json.loads(line) for line in self.running.stderr.splitlines() if line.startswith("{")]

    def said(self, message: str) -> list[dict[str, Any]]:
        return [line for line in self.lines if line["message"] == message]

    def get(self, path: str) -> tuple[int, str]:
        """Status and text of what it serves."""
        connection = http.client.HTTPConnection(self.address, self.status_port, timeout=processes.WAIT)
        with contextlib.closing(connection):
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()

    def metric(self, name: str) -> dict[str, float]:
        """A metric's values by the text of their labels."""
        _, text = self.get("/metrics")
        return {labels: float(value) for labels, value in re.findall(rf"^{name}(\{{.*\}})? (\S+)$", text, re.M)}


@dataclass(frozen=True, kw_only=True)
class Installed:
    """The API server with hgate's rights in it. ``folder`` is for kubeconfigs."""

    kubernetes: Kubernetes
    folder: Path

    @contextlib.contextmanager
    def replica(self, *flags: str, door: Door | None = None, **variables: str) -> Iterator[Replica]:
        """One more, ready, as the service account of the manifests; ``door``: the way that it takes to the API."""
        with self.starting(*flags, door=door, **variables) as made:
            made.running.wait_for('"message": "ready"', timeout=60)
            yield made

    @contextlib.contextmanager
    def starting(self, *flags: str, door: Door | None = None, **variables: str) -> Iterator[Replica]:
        """The same, that has only been started."""
        token = self.kubernetes.token(ACCOUNT, namespace=SYSTEM)
        url, root = (door.url, door.authority.root) if door else (self.kubernetes.url, self.kubernetes.root)
        address = loopback()
        path = self.folder / f"{address}.kubeconfig"
        write(path=path, content=kubeconfig(server=url, root=root, user=by_token(token)).encode())
        port, status_port = free_port(address=address), free_port(address=address)
        argv = [
            "hgate",
            "--kubeconfig",
            str(path),
            "--listen",
            f"{address}:{port}",
            "--status",
            f"{address}:{status_port}",
            "--workers",
            "1",
            *flags,
        ]
        env = processes.environment(**{"KRUN_LOG_FORMAT": "json", **PROJECT, **variables})
        with processes.start(argv, env=env) as running:
            yield Replica(running=running, address=address, port=port, status_port=status_port)

    def balanced(self, *, public: str = "", internal: str = "") -> None:
        """Give the load balancers addresses."""
        for name, address in ((hgate_deployment.PUBLIC, public), (hgate_deployment.INTERNAL, internal)):
            hgate_deployment.balanced(self.kubernetes, name, address)

    def declare(self, name: str, *, namespace: str, url: str) -> dict[str, Any]:
        """An annotated Service."""
        metadata = {"name": name, "namespace": namespace, "annotations": {"hgate.krun/url": url}}
        spec = {"ports": [{"name": "http", "port": 8080}]}
        (made,) = self.kubernetes.apply({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec})
        found: dict[str, Any] = made
        return found

    def mesh_env(self) -> dict[str, str] | None:
        """Its data, ``None`` when there is none."""
        try:
            found = self.kubernetes.admin.get(f"/api/v1/namespaces/{SYSTEM}/configmaps/mesh-env")
        except ApiError as error:
            if error.status != 404:
                raise
            return None
        data: dict[str, str] = found.get("data") or {}
        return data

    def written(self, namespace: str) -> set[str]:
        """What hgate has written in a namespace: KIND/NAME."""
        return {f"{kind}/{item['metadata']['name']}" for kind, items in self._ours(namespace).items() for item in items}

    def _ours(self, namespace: str) -> dict[str, list[Any]]:
        scope = f"namespaces/{namespace}/" if namespace else ""
        paths = {
            "Service": "/api/v1",
            "EndpointSlice": "/apis/discovery.k8s.io/v1",
            "WorkloadEntry": "/apis/networking.istio.io/v1",
            "DestinationRule": "/apis/networking.istio.io/v1",
            "VirtualService": "/apis/networking.istio.io/v1",
            "Sidecar": "/apis/networking.istio.io/v1",
            "PeerAuthentication": "/apis/security.istio.io/v1",
        }
        plural = {"WorkloadEntry": "workloadentries"}
        return {
            kind: self.kubernetes.admin.get(
                f"{base}/{scope}{plural.get(kind, kind.lower() + 's')}?labelSelector=app.kubernetes.io/managed-by=hgate"
            )["items"]
            for kind, base in paths.items()
        }

    def sweep(self) -> None:
        """Take away all that tests and hgate have left: the next one finds a cluster as an admin left it."""
        admin = self.kubernetes.admin
        for item in admin.get("/api/v1/services")["items"]:
            if any(key.startswith("hgate.krun/") for key in item["metadata"].get("annotations") or {}):
                admin.delete(f"/api/v1/namespaces/{item['metadata']['namespace']}/services/{item['metadata']['name']}")
        for items in self._ours("").values():
            for item in items:
                with contextlib.suppress(ApiError):
                    admin.delete(admin.path_of({"apiVersion": "v1", "kind": "Service", **item}))
        for path in (
            *(f"/api/v1/namespaces/{SYSTEM}/configmaps/{name}" for name in CONFIG_MAPS),
            f"/apis/coordination.k8s.io/v1/namespaces/{SYSTEM}/leases/hgate",
        ):
            with contextlib.suppress(ApiError):
                admin.delete(path)
        self.balanced()


def install(kubernetes: Kubernetes, *, folder: Path, without: Right | None = None) -> Installed:
    """Istio's kinds, and the manifests but for the Deployment; ``without``: a rule that hgate's roles lack."""
    hgate_rounds.definitions(kubernetes)
    items = [hgate_roles.lacking(item, without) if without else item for item in hgate_deployment.manifests()]
    kubernetes.apply(*[item for item in items if item["kind"] != "Deployment"])
    return Installed(kubernetes=kubernetes, folder=folder)
