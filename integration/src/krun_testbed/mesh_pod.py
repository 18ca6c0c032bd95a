"""A pod of the testbed's cluster: a place, an application, the objects that make it known, and a sidecar or none."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from krun_testbed import mesh_agent, mesh_app, mesh_call, mesh_objects, processes
from krun_testbed.istiod import AUDIENCE, Istiod
from krun_testbed.mesh_agent import Agent, Identity
from krun_testbed.mesh_app import App
from krun_testbed.mesh_call import Answer
from krun_testbed.mesh_network import Place

RESOLVER = "10.96.0.10"  # the cluster's name server


@dataclass(frozen=True, kw_only=True)
class Pod:
    """A pod that runs; ``agent`` is None for one without a sidecar."""

    name: str
    namespace: str
    account: str
    labels: Mapping[str, str]
    place: Place
    app: App
    agent: Agent | None
    istiod: Istiod

    @property
    def identity(self) -> str:
        """Its SPIFFE id."""
        return f"spiffe://cluster.local/ns/{self.namespace}/sa/{self.account}"

    def call(self, url: str, **options: Any) -> Answer:
        """One request of its application; see mesh_call for options."""
        return mesh_call.call(self.place, url, **options)

    def wait_for_config(self, pattern: str) -> None:
        """Wait until its proxy's configuration has what the regular expression says."""
        mesh_agent.wait_for_config(self.place, pattern)


@contextlib.contextmanager
def pod(
    istiod: Istiod,
    *,
    name: str,
    namespace: str,
    account: str = "default",
    labels: Mapping[str, str] | None = None,
    port: int = 8080,
    address: str = "",
    sidecar: bool = True,
    proxy_config: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] | None = None,
    rules: tuple[str, ...] = (),
) -> Iterator[Pod]:
    """A pod that is ready and known to the API server. A service with it is the cluster's to make.

    ``rules``: further flags of istio-iptables.
    """
    labels = {"app": name, **(mesh_objects.MUTUAL if sidecar else {}), **(labels or {})}
    kubernetes = istiod.kubernetes
    with contextlib.ExitStack() as stack:
        place = stack.enter_context(istiod.network.place(address=address, name=name))
        place.resolver(RESOLVER, search=[f"{namespace}.svc.cluster.local", "svc.cluster.local", "cluster.local"])
        app = stack.enter_context(mesh_app.app(place, name=name, port=port))
        applied = mesh_objects.pod(name, account=account, labels=labels, ports=[port])
        (made,) = kubernetes.apply(applied, namespace=namespace)
        path = kubernetes.admin.path_of(made)
        stack.callback(kubernetes.admin.delete, f"{path}?gracePeriodSeconds=0")
        agent = None
        if sidecar:
            identity = Identity(
                name=name,
                namespace=namespace,
                account=account,
                labels=labels,
                token=kubernetes.token(account, namespace=namespace, audiences=(AUDIENCE,)),
                root=istiod.root(namespace=namespace),
            )
            mesh_agent.capture(place, *rules, version=istiod.version)
            agent = stack.enter_context(
                mesh_agent.agent(
                    place, identity, version=istiod.version, proxy_config=proxy_config, environment=environment
                )
            )
        status = {"status": mesh_objects.running(place.address)}
        kubernetes.admin.request("PATCH", f"{path}/status", status, kind="application/merge-patch+json")
        yield Pod(
            name=name,
            namespace=namespace,
            account=account,
            labels=labels,
            place=place,
            app=app,
            agent=agent,
            istiod=istiod,
        )


def wait_until_served(place: Place, address: str) -> None:
    """Wait until a proxy has this address among its endpoints; else say what it has, and what it still waits for."""

    def clusters() -> str:
        return mesh_call.admin(place, "/clusters").body.decode()

    try:
        processes.wait_until(lambda: f"{address}:" in clusters(), what=f"{address} is an endpoint")
    except AssertionError as error:
        hosts = sorted(
            {line.partition("::health_flags")[0] for line in clusters().splitlines() if "health_flags" in line}
        )
        asked = "/config_dump?resource=dynamic_warming_clusters&mask=cluster.name"
        waiting = mesh_call.admin(place, asked).body.decode()
        control = mesh_call.admin(place, "/stats?filter=control_plane|cluster_manager|update_").body.decode()
        raise AssertionError("\n".join((str(error), *hosts, waiting, control))) from error
