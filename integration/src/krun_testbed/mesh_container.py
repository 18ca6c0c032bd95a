"""A container outside of the cluster in a real mesh: an image of the tests, beside one that only holds its network."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from krun_testbed import containers, containers_mesh, images, istio_build, mesh_cluster, mesh_workload
from krun_testbed.containers import Container
from krun_testbed.docker_engine import docker
from krun_testbed.mesh_cluster import Cluster
from krun_testbed.mesh_network import Place

# Of a workload's variables, those that are of this machine and not of the container.
MACHINES = frozenset({"PATH", "HOME", "LANG", "KRUN_ENVOY", "PYTHONDONTWRITEBYTECODE", "K8S_UID"})
# Where images of Istio's have the two.
AGENT, TEMPLATE = "/usr/local/bin/pilot-agent", "/var/lib/istio/envoy/envoy_bootstrap_tmpl.json"
SETTINGS = "/mesh"
READY = 120.0  # seconds


@dataclass(frozen=True, kw_only=True)
class Contained:
    """A container that is ready; ``place`` is its network."""

    container: Container
    place: Place
    identity: str


@contextlib.contextmanager
def contained(
    cluster: Cluster,
    name: str,
    *,
    namespace: str,
    account: str = "default",
    image: str = "entrypoint",
    cap_add: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
) -> Iterator[Contained]:
    """The application of the image as a workload, as users start it, with pilot-agent mounted into it."""
    with cluster.network.folder_for(name) as folder, _network(cluster, folder) as place:
        place.resolver(mesh_cluster.OUTSIDE_RESOLVER)
        version = cluster.istiod.version
        settings = mesh_workload.environment(cluster, place, name=name, namespace=namespace, account=account)
        own = {key: value for key, value in settings.items() if key not in MACHINES}
        own |= {"KUBECONFIG": f"{SETTINGS}/kubeconfig", "KRUN_PILOT_AGENT": AGENT, "ISTIO_BOOTSTRAP": TEMPLATE}
        volumes = {
            istio_build.binary(version=version): AGENT,
            istio_build.file(istio_build.TEMPLATE, version=version): TEMPLATE,
            folder: SETTINGS,
            folder / "resolv.conf": "/etc/resolv.conf",
        }
        with containers.started(
            images.tag(image),
            env={**own, "NAME": name, **(env or {})},
            volumes=volumes,
            cap_add=cap_add,
            options=["--network", f"container:{_name(place)}"],
        ) as container:
            container.wait_for(containers_mesh.READY, timeout=READY)
            identity = f"spiffe://cluster.local/ns/{namespace}/sa/{account}"
            yield Contained(container=container, place=place, identity=identity)


@contextlib.contextmanager
def _network(cluster: Cluster, folder: Path) -> Iterator[Place]:
    """A network namespace that a container holds: it must be joined before the workload begins."""
    holding = containers.started(
        images.tag("entrypoint"),
        "infinity",
        entrypoint="sleep",
        options=["--network", "none", "--name", f"krun-{folder.name}"],
    )
    with holding as holder:
        pid = int(docker("inspect", "--format", "{{.State.Pid}}", holder.identifier).stdout)
        place = Place(pid=pid, address=cluster.network.free(), folder=folder, has_files=False)
        with cluster.network.joined(place):
            yield place


def _name(place: Place) -> str:
    return f"krun-{place.folder.name}"
