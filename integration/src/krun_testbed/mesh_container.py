"""A container outside of the cluster in a real mesh, beside one that only holds its network."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from krun_testbed import containers, containers_mesh, images, mesh_cluster, mesh_image, mesh_workload
from krun_testbed.containers import Container
from krun_testbed.docker_engine import docker
from krun_testbed.mesh_cluster import Cluster
from krun_testbed.mesh_network import Place

# Of a workload's variables, those that are of this machine and not of the container.
MACHINES = frozenset(
    {
        *("PATH", "HOME", "LANG", "PYTHONDONTWRITEBYTECODE", "K8S_UID"),
        *("KRUN_ENVOY", "KRUN_PILOT_AGENT", "ISTIO_BOOTSTRAP"),
    }
)
SETTINGS = "/mesh"
READY = 120.0  # seconds
DEVICE = "mesh0"  # Docker has eth0 where it has one


@dataclass(frozen=True, kw_only=True)
class Contained:
    """A container that is ready; ``place`` is its network, and ``holder`` who holds that."""

    container: Container
    holder: Container
    place: Place
    identity: str


@contextlib.contextmanager
def contained(
    cluster: Cluster,
    name: str,
    *,
    namespace: str,
    account: str = "default",
    network: str = "",
    cap_add: Sequence[str] = (),
    cap_drop: Sequence[str] = (),
    user: str = "",
    env: Mapping[str, str] | None = None,
) -> Iterator[Contained]:
    """The application as a workload, as users start it.

    Its name server is one of the world's, or Docker's own in that ``network``; ``user`` is a number.
    """
    with cluster.network.folder_for(name) as folder, _holder(network) as holder:
        pid = int(docker("inspect", "--format", "{{.State.Pid}}", holder.identifier).stdout)
        place = Place(pid=pid, address=cluster.network.free(), folder=folder, has_files=False)
        with cluster.network.joined(place, device=DEVICE):
            settings = mesh_workload.environment(cluster, place, name=name, namespace=namespace, account=account)
            if user:
                os.chown(folder / "kubeconfig", int(user), int(user))
            own = {key: value for key, value in settings.items() if key not in MACHINES}
            own |= {"KUBECONFIG": f"{SETTINGS}/kubeconfig", "NAME": name}
            with containers.started(
                mesh_image.make(version=cluster.istiod.version),
                env={**own, **({"K8S_UID": ""} if user else {}), **(env or {})},
                volumes={folder: SETTINGS},
                cap_add=cap_add,
                cap_drop=cap_drop,
                user=user,
                options=["--network", f"container:{holder.identifier}"],
            ) as container:
                container.wait_for(containers_mesh.READY, timeout=READY)
                identity = f"spiffe://cluster.local/ns/{namespace}/sa/{account}"
                yield Contained(container=container, holder=holder, place=place, identity=identity)


@contextlib.contextmanager
def docker_network() -> Iterator[str]:
    """A network of Docker's with names of its own, that leads nowhere else."""
    name = f"krun-{secrets.token_hex(4)}"
    label = f"{containers.OWNER}={containers.owner()}"
    docker("network", "create", "--internal", "--label", label, name)
    try:
        yield name
    finally:
        docker("network", "rm", name)


@contextlib.contextmanager
def _holder(network: str) -> Iterator[Container]:
    """Who holds a network namespace: it must be joined before the workload begins."""
    there = ["--network", network, "--network-alias", "holder"] if network else ["--network", "none"]
    # Docker's own resolver asks this server, from within.
    options = [*there, "--dns", mesh_cluster.OUTSIDE_RESOLVER]
    with containers.started(images.tag("golden"), "infinity", entrypoint="sleep", options=options) as holder:
        yield holder
