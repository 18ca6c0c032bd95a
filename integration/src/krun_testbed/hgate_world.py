"""The whole way from pods to Cloud Run: Google's APIs and the front by their true names, and workloads behind it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from krun_testbed import (
    google_api,
    hgate_doors,
    hgate_front,
    hgate_replica,
    mesh_agent,
    mesh_objects,
    mesh_pod,
    mesh_workload,
)
from krun_testbed.addresses import loopback
from krun_testbed.certificates import Authority
from krun_testbed.google_api import GoogleApi
from krun_testbed.google_api_metadata import metadata_server
from krun_testbed.google_tokens import Issuer
from krun_testbed.hgate_doors import Door
from krun_testbed.hgate_front import Front
from krun_testbed.hgate_replica import Replica
from krun_testbed.mesh_cluster import Cluster
from krun_testbed.mesh_pod import Pod
from krun_testbed.mesh_workload import Workload
from krun_testbed.metadata import Facts, MetadataServer

ACCOUNT = "hgate@demo-project.iam.gserviceaccount.com"  # Google's, as whom the gate calls Cloud Run


@dataclass(frozen=True, kw_only=True)
class World:
    """All of it, but the gate itself."""

    cluster: Cluster
    google: GoogleApi
    metadata: MetadataServer
    front: Front
    doors: Mapping[str, Door]
    root: bytes  # whom the gate believes

    @property
    def audiences(self) -> list[str]:
        """For whom the metadata server was asked for ID tokens, in order."""
        asked = [request for request in self.metadata.requests if "/identity?" in request]
        return [hgate_doors.audience(request) for request in asked]

    @contextlib.contextmanager
    def gate(self, **options: Any) -> Iterator[Replica]:
        """A gate that is ready; see hgate_replica for options."""
        with hgate_replica.replica(self.cluster, root=self.root, **options) as made:
            yield made

    @contextlib.contextmanager
    def workload(self, name: str, *, namespace: str, **options: Any) -> Iterator[Workload]:
        """An instance of a Cloud Run service, as the platform starts it; ``front.add`` makes it one."""
        platform = {"K_SERVICE": name, "K_REVISION": f"{name}-00001-abc", "PORT": str(hgate_front.PORT)}
        env = {**platform, **(options.pop("env", None) or {})}
        with mesh_workload.workload(self.cluster, name, namespace=namespace, env=env, **options) as made:
            yield made

    def by_hand(self, workload: Workload, gate: Replica, *, pools: Mapping[str, Any] | None = None) -> str:
        """Make a workload a service at 8080, reached by the gate, and return its address; ``pools``: connectionPool."""
        name, namespace, cluster = workload.name, workload.namespace, self.cluster
        labels = {"app": name}
        ports = {"http": hgate_replica.PORT}
        rule = mesh_objects.mutual(workload.host)
        if pools:
            rule["spec"]["trafficPolicy"]["connectionPool"] = dict(pools)
        address = cluster.service(name, namespace=namespace)
        cluster.apply(
            rule,
            mesh_objects.workload_entry(
                name, address=gate.place.address, ports=ports, account=workload.account, labels=labels
            ),
            mesh_objects.inward(name, labels=labels),
            namespace=namespace,
        )
        return address

    def settle(self, workload: Workload, gate: Replica, *pods: Pod) -> None:
        """Wait until the proxies of these pods lead to the workload by the gate, and it takes what comes so."""
        self.cluster.settle(workload.place, *(pod.place for pod in pods), namespace=workload.namespace)
        for pod in pods:
            mesh_pod.wait_until_served(pod.place, gate.place.address)
        mesh_agent.wait_for_config(workload.place, "_15003")


@contextlib.contextmanager
def world(
    cluster: Cluster, *, folder: Path, authority: Authority, issuer: Issuer, limit: float = hgate_front.LIMIT
) -> Iterator[World]:
    """``limit``: seconds for a request to Cloud Run."""
    address = loopback()
    with (
        google_api.running(address=address, directory=folder, authority=authority, issuer=issuer) as google,
        metadata_server(google.accounts, address=address, platform="gke", facts=Facts(email=ACCOUNT)) as metadata,
        hgate_doors.google(cluster, google, metadata) as doors,
        hgate_doors.kubernetes(cluster) as api,
        hgate_front.front(cluster, authority=authority, issuer=issuer, limit=limit) as front,
    ):
        yield World(
            cluster=cluster,
            google=google,
            metadata=metadata,
            front=front,
            doors={**doors, "kubernetes": api},
            root=authority.root,
        )
