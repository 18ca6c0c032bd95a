"""A workload outside of the cluster: ``krun`` with an application in a place, as a container outside would run it."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

from krun_testbed import components, istio_build, istiod, mesh_agent, mesh_call, mesh_cluster, processes, tables
from krun_testbed.certificates import write
from krun_testbed.kubernetes_kubeconfig import by_token, kubeconfig
from krun_testbed.mesh_call import Answer
from krun_testbed.mesh_cluster import Cluster
from krun_testbed.mesh_network import Place

READY = 120.0  # seconds; some two on a machine that has nothing else to do
APP_USER = 1000
# Of krun-launch's log: hboned says so too, a moment earlier.
READY_LINE = r'"krun-launch", .*"message": "ready"|krun-launch: ready\b'


@dataclass(frozen=True, kw_only=True)
class Workload:
    """One that runs."""

    name: str
    namespace: str
    account: str
    place: Place
    running: processes.Running

    @property
    def identity(self) -> str:
        """Its SPIFFE id."""
        return f"spiffe://cluster.local/ns/{self.namespace}/sa/{self.account}"

    @property
    def host(self) -> str:
        """The name of its service, when it is registered."""
        return f"{self.name}.{self.namespace}.{mesh_cluster.SUFFIX}"

    def call(self, url: str, **options: Any) -> Answer:
        """One request as its application would make it; see mesh_call for options."""
        return mesh_call.call(self.place, url, **options)

    def curl(self, *arguments: str, timeout: float = 60.0) -> str:
        """What curl prints for a user of the workload, by the place's own resolver."""
        command = as_app("curl", "--silent", "--show-error", "--max-time", "20", *arguments)
        done = self.place.run(*command, timeout=timeout)
        if done.returncode != 0:
            raise AssertionError(f"curl {' '.join(arguments)}: {done.returncode}: {done.stderr}\n{self.running.said()}")
        return done.stdout

    def wait_for_config(self, pattern: str) -> None:
        """Wait until its proxy's configuration has what the regular expression says."""
        mesh_agent.wait_for_config(self.place, pattern)


def as_app(*argv: str) -> list[str]:
    """The command line of a command as the application's user."""
    setpriv = components.program("setpriv", package="util-linux")
    return [setpriv, f"--reuid={APP_USER}", f"--regid={APP_USER}", "--clear-groups", *argv]


def application(name: str, *, port: int = 8080) -> list[str]:
    """The command line of an application of the testbed; it finds its port by itself as any would not: it is told."""
    return [sys.executable, "-m", "krun_testbed.mesh_app", "--name", name, "--port", str(port)]


def environment(
    cluster: Cluster,
    place: Place,
    *,
    name: str,
    namespace: str,
    account: str = "default",
    api: str = istiod.API_INSIDE,
    discovery: str = istiod.INSIDE,
) -> dict[str, str]:
    """What such a workload is told: its names, the mesh, and as whom it calls the API server, which may mint its token.

    ``api``, ``discovery``: at which address API server and istiod are called.
    """
    principal = f"{name}-{namespace}@demo-project.iam.gserviceaccount.com"
    grant(cluster, principal, namespace=namespace, account=account)
    config = place.folder / "kubeconfig"
    user = by_token(cluster.kubernetes.outsider(principal))
    text = kubeconfig(server=f"https://{api}", root=cluster.kubernetes.root, user=user, namespace=namespace)
    write(path=config, content=text.encode())
    version = cluster.istiod.version
    istio_build.make(istio_build.AGENT, version=version)
    return processes.environment(
        KUBECONFIG=str(config),
        WORKLOAD_NAMESPACE=namespace,
        WORKLOAD_NAME=name,
        WORKLOAD_SERVICE_ACCOUNT=account,
        TRUST_DOMAIN="cluster.local",
        XDS_ADDR=f"{discovery}:{istiod.XDS}",
        CAROOT_ISTIOD=cluster.istiod.root(),
        KRUN_PILOT_AGENT=str(istio_build.binary(version=version)),
        ISTIO_BOOTSTRAP=str(istio_build.file(istio_build.TEMPLATE, version=version)),
        KRUN_TOKEN_CACHE="off",
        CLOUD_PLATFORM="none",
        HOME=str(place.folder),
        K8S_UID=str(APP_USER),
    )


def grant(cluster: Cluster, principal: str, *, namespace: str, account: str) -> None:
    """Let somebody do what manifests/ let a workload do."""
    text = (tables.ROOT / "manifests" / "discover-rbac.yaml").read_text(encoding="utf-8")
    variables = {"PRINCIPAL": principal, "WORKLOAD_NAMESPACE": namespace, "WORKLOAD_SERVICE_ACCOUNT": account}
    cluster.kubernetes.apply(Template(text).substitute(variables))


@contextlib.contextmanager
def started(
    place: Place, argv: Sequence[str], *, env: Mapping[str, str], command: str = "krun"
) -> Iterator[processes.Running]:
    """``krun`` with an application in the place, as root; ended with the block."""
    with processes.start(place.inside([components.command(command), *argv], cwd=place.folder), env=env) as running:
        yield running


@contextlib.contextmanager
def workload(
    cluster: Cluster,
    name: str,
    *,
    namespace: str,
    account: str = "default",
    app: Sequence[str] = (),
    address: str = "",
    api: str = istiod.API_INSIDE,
    discovery: str = istiod.INSIDE,
    resolver: str = mesh_cluster.OUTSIDE_RESOLVER,
    env: Mapping[str, str] | None = None,
) -> Iterator[Workload]:
    """A workload that is ready: its proxy has what istiod says, and its application answers."""
    with cluster.network.place(address=address, name=name) as place:
        place.resolver(resolver)
        settings = environment(
            cluster, place, name=name, namespace=namespace, account=account, api=api, discovery=discovery
        )
        argv = ["--", *(app or application(name))]
        with started(place, argv, env={**settings, **(env or {})}) as running:
            wait_until_ready(running)
            yield Workload(name=name, namespace=namespace, account=account, place=place, running=running)


def wait_until_ready(running: processes.Running) -> None:
    """Wait until krun-launch says that it is ready; its own end is told with what it said."""

    def is_ready() -> bool:
        if running.ends(timeout=0):
            raise AssertionError(f"krun ended\n{running.said()[-6000:]}")
        return re.search(READY_LINE, running.stderr, re.MULTILINE) is not None

    try:
        processes.wait_until(is_ready, what="krun is ready", timeout=READY)
    except AssertionError as error:
        raise AssertionError(f"{error}\n{running.said()[-6000:]}") from error


def file(place: Place, name: str, text: str) -> Path:
    """A file of the workload that all its users may read."""
    path = place.folder / name
    path.write_text(text, encoding="utf-8")
    return path
