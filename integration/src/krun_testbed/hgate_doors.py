"""Doors of a mesh's network to what listens on this machine's loopback: Google's APIs and the API server by name."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

from krun_testbed import mesh_sockets
from krun_testbed.google_api import GoogleApi
from krun_testbed.mesh_cluster import Cluster
from krun_testbed.mesh_network import Place
from krun_testbed.metadata import MetadataServer

METADATA = "169.254.169.254"
METADATA_NAME = "metadata.google.internal"
API_NAME = "kubernetes.default.svc"
IDENTITY = f"http://{METADATA_NAME}/computeMetadata/v1/instance/service-accounts/default/identity"
TOKEN_COMMAND = f"curl -s -f -H Metadata-Flavor:Google {IDENTITY}?audience={{audience}}&format=full"
GOOGLE = {"iamcredentials": "iamcredentials.googleapis.com", "run": "run.googleapis.com"}


@dataclass(kw_only=True)
class Door:
    """An address and port of the hub that leads to one on this machine's loopback, until it is closed."""

    hub: Place
    address: str
    port: int
    where: Callable[[], tuple[str, int]]
    count: int = 0  # connections that came
    _open: contextlib.ExitStack = field(default_factory=contextlib.ExitStack, repr=False)

    def open(self) -> None:
        """Let everybody through."""

        def serve(connected: socket.socket) -> None:
            self.count += 1
            with socket.create_connection(self.where()) as there:
                mesh_sockets.relay(connected, there)

        self._open.enter_context(mesh_sockets.serving(self.hub.listener(self.address, self.port), serve))

    def close(self) -> None:
        """Cut all, and refuse who comes."""
        self._open.close()


@contextlib.contextmanager
def door(cluster: Cluster, port: int, where: Callable[[], tuple[str, int]], *, address: str = "") -> Iterator[Door]:
    """An open door, at an address of its own unless one is given."""
    address = address or cluster.network.free()
    cluster.network.own(address)
    made = Door(hub=cluster.network.hub, address=address, port=port, where=where)
    made.open()
    try:
        yield made
    finally:
        made.close()


@contextlib.contextmanager
def google(cluster: Cluster, api: GoogleApi, metadata: MetadataServer) -> Iterator[dict[str, Door]]:
    """Google's APIs and the metadata server at their true names, for whoever asks the cluster's name server."""
    host, _, port = metadata.address.rpartition(":")
    with contextlib.ExitStack() as stack:
        doors = {"metadata": stack.enter_context(door(cluster, 80, lambda: (host, int(port)), address=METADATA))}
        names = {METADATA_NAME: METADATA}
        for server, name in GOOGLE.items():
            if server in api.servers:
                doors[server] = stack.enter_context(door(cluster, 443, api.servers[server].where))
                names[name] = doors[server].address
        with named(cluster, names):
            yield doors


def audience(target: str) -> str:
    """For whom an ID token is, by the path and query with which the metadata server was asked for it."""
    return parse_qs(urlsplit(target).query).get("audience", [""])[-1]


@contextlib.contextmanager
def kubernetes(cluster: Cluster) -> Iterator[Door]:
    """The API server at a name of its own, which only who asks the cluster's name server uses: it can be shut."""
    names = (API_NAME, f"{API_NAME}.cluster.local")
    with door(cluster, 443, cluster.kubernetes.where) as made, named(cluster, dict.fromkeys(names, made.address)):
        yield made


@contextlib.contextmanager
def trap(cluster: Cluster, *names: str, address: str = "") -> Iterator[Door]:
    """A host of the world, at 443 of an address under these names, that only counts who comes."""

    def nowhere() -> tuple[str, int]:
        raise ConnectionRefusedError

    with door(cluster, 443, nowhere, address=address) as made, named(cluster, dict.fromkeys(names, made.address)):
        yield made


@contextlib.contextmanager
def named(cluster: Cluster, names: dict[str, str]) -> Iterator[None]:
    """Names that the cluster's name server knows within the block."""
    cluster.names.names.update(names)
    try:
        yield
    finally:
        for name in names:
            cluster.names.names.pop(name, None)
