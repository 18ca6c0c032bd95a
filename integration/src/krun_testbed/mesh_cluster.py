"""A cluster with a mesh: API server, istiod, network and names together, and what a test puts into its namespaces."""

from __future__ import annotations

import contextlib
import ipaddress
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from krun_testbed import istiod as istiod_server
from krun_testbed import mesh_agent, mesh_dns, mesh_gate, mesh_network, mesh_objects, mesh_pod, processes
from krun_testbed.istiod import Istiod
from krun_testbed.kubernetes import Kubernetes
from krun_testbed.mesh_dns import NameServer
from krun_testbed.mesh_gate import Gate
from krun_testbed.mesh_network import Network, Place
from krun_testbed.mesh_pod import Pod

OUTSIDE_RESOLVER = "203.0.113.53"  # of workloads outside: it knows no name of the cluster
SUFFIX = "svc.cluster.local"
BACK = 90.0  # seconds: an agent whose istiod was gone asks again after half a minute or more
USUAL = "10.96.64.0/20"  # in the first range, and of ours to give
FURTHER = "172.30.0.0/24"  # a second range of services, outside of 10.0.0.0/8


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """All of it. ``names`` are the cluster's own, by its name server; ``outside`` those of the world around."""

    kubernetes: Kubernetes
    istiod: Istiod
    network: Network
    names: NameServer
    outside: NameServer

    def namespace(self, name: str = "") -> str:
        """A namespace that nobody else has, with its service account ``default``, and istiod's root in it."""
        made = self.kubernetes.namespace(name or f"mesh-{secrets.token_hex(4)}")
        self.istiod.root(namespace=made)
        return made

    def apply(self, *manifests: str | Path | Mapping[str, Any], namespace: str) -> list[Any]:
        """Apply objects, which istiod takes at its next moment; ``settle`` waits for that."""
        return self.kubernetes.apply(*manifests, namespace=namespace)

    def settle(self, *places: Place, namespace: str, timeout: float = processes.WAIT) -> None:
        """Wait until proxies have all that was applied before: a last object, which each of them shows."""
        host = f"settled-{secrets.token_hex(4)}.invalid"
        marker = mesh_objects.service_entry(host.partition(".")[0], hosts=[host], ports={"tcp": (9, "TCP")})
        (made,) = self.apply(marker, namespace=namespace)
        for place in places:
            mesh_agent.wait_for_config(place, host, timeout=timeout)
        self.kubernetes.admin.delete(self.kubernetes.admin.path_of(made))

    def service(
        self,
        name: str,
        *pods: Pod,
        namespace: str,
        ports: Mapping[str, tuple[int, int]] | None = None,
        selector: Mapping[str, str] | None = None,
        address: str = "",
    ) -> str:
        """A service of these pods, with its endpoints and its name in the cluster; its ClusterIP."""
        ports = ports or {"http": (8080, 8080)}
        asked = mesh_objects.service(name, ports=ports, selector=selector, address=address or self._free())
        (made,) = self.apply(asked, namespace=namespace)
        found: str = made["spec"]["clusterIP"]
        if pods:
            targets = {key: target for key, (_, target) in ports.items()}
            addresses = {pod.name: pod.place.address for pod in pods}
            listed = mesh_objects.endpoints(name, namespace=namespace, ports=targets, addresses=addresses)
            self.apply(listed, namespace=namespace)
        self.names.names[f"{name}.{namespace}.{SUFFIX}"] = found
        return found

    def _free(self) -> str:
        """An address of the first range that no service has: the server itself would choose out of both."""
        services = self.kubernetes.admin.get("/api/v1/services")["items"]
        used = {service["spec"].get("clusterIP") for service in services}
        return next(str(each) for each in ipaddress.ip_network(USUAL).hosts() if str(each) not in used)

    @contextlib.contextmanager
    def pod(self, name: str, *, namespace: str, service: bool = True, **options: Any) -> Iterator[Pod]:
        """A pod, and with ``service`` one of its name at 8080; see mesh_pod for options."""
        with mesh_pod.pod(self.istiod, name=name, namespace=namespace, **options) as made:
            if service:
                ports = {"http": (8080, made.app.port)}
                self.service(name, made, namespace=namespace, ports=ports, selector={"app": name})
            yield made

    @contextlib.contextmanager
    def gate(self) -> Iterator[Gate]:
        """A gate at an address of its own."""
        address = self.network.free()
        self.network.own(address)
        with mesh_gate.gate(self.network.hub, address) as made:
            yield made

    def register(self, name: str, gate: Gate, *, namespace: str, account: str = "default", port: int = 8080) -> None:
        """Make a workload outside known as a service at 8080, reached by a gate; its application has ``port``."""
        labels = {"app": name}
        self.service(name, namespace=namespace)
        self.apply(
            mesh_objects.mutual(f"{name}.{namespace}.{SUFFIX}"),
            mesh_objects.workload_entry(
                name, address=gate.address, ports={"http": mesh_gate.PORT}, account=account, labels=labels
            ),
            mesh_objects.inward(name, labels=labels, port=port),
            namespace=namespace,
        )


@contextlib.contextmanager
def running(kubernetes: Kubernetes, **options: Any) -> Iterator[Cluster]:
    """A cluster without pods; see istiod for options."""
    with contextlib.ExitStack() as stack:
        network = stack.enter_context(mesh_network.network())
        network.own(mesh_pod.RESOLVER, OUTSIDE_RESOLVER)
        names = stack.enter_context(mesh_dns.name_server(network.hub, mesh_pod.RESOLVER))
        outside = stack.enter_context(mesh_dns.name_server(network.hub, OUTSIDE_RESOLVER))
        _widen(kubernetes)
        istiod = stack.enter_context(istiod_server.running(kubernetes, network, **options))
        names.names[f"istiod.istio-system.{SUFFIX}"] = istiod_server.INSIDE
        yield Cluster(kubernetes=kubernetes, istiod=istiod, network=network, names=names, outside=outside)


def _widen(kubernetes: Kubernetes) -> None:
    """Let services have addresses of FURTHER."""
    kind = {"apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": {"name": "further"}}
    (made,) = kubernetes.apply({**kind, "spec": {"cidrs": [FURTHER]}})
    # A controller says so, where there is one.
    ready = {"type": "Ready", "status": "True", "reason": "Testbed", "message": ""}
    status = {"conditions": [{**ready, "lastTransitionTime": "2026-01-01T00:00:00Z"}]}
    path = f"{kubernetes.admin.path_of(made)}/status"
    kubernetes.admin.request("PATCH", path, {"status": status}, kind="application/merge-patch+json")
