"""A workload outside whose way to the mesh is its HTTP proxy, nothing captured; and a scene for its calls."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path

from krun_testbed import components, mesh_app, mesh_objects, mesh_pod, mesh_workload, processes
from krun_testbed.mesh_call import Answer
from krun_testbed.mesh_cluster import OUTSIDE_RESOLVER, Cluster
from krun_testbed.mesh_network import Place
from krun_testbed.mesh_pod import Pod
from krun_testbed.mesh_workload import Workload

PROXY = 15007
WORLD = "203.0.113.80"  # a host outside of the mesh, and its name
NAME = "world.example"


@dataclass(frozen=True, kw_only=True)
class Outsider:
    """A workload outside; the test calls as its application would."""

    workload: Workload

    @property
    def place(self) -> Place:
        """Where it runs."""
        return self.workload.place

    def environment(self) -> dict[str, str]:
        """Its application's, as the kernel has it."""
        return self._environments()["mesh_app"]

    def environments(self) -> dict[str, dict[str, str]]:
        """Those of all its other processes, by the name of the program."""
        return {name: found for name, found in self._environments().items() if name != "mesh_app"}

    def _environments(self) -> dict[str, dict[str, str]]:
        place = Path(f"/proc/{self.place.pid}/ns/net").readlink()
        found: dict[str, dict[str, str]] = {}
        for process in Path("/proc").glob("[0-9]*"):
            # Some end while we look.
            with contextlib.suppress(OSError):
                if (process / "ns/net").readlink() != place:
                    continue
                argv = (process / "cmdline").read_bytes().decode().split("\0")
                pairs = (process / "environ").read_bytes().decode().split("\0")
                name = "mesh_app" if "krun_testbed.mesh_app" in argv else Path(argv[0]).name.partition("-v0")[0]
                found[name] = dict(pair.split("=", 1) for pair in pairs if pair)
        return found

    @contextlib.contextmanager
    def connection(self) -> Iterator[HTTPConnection]:
        """A connection to the proxy, for any number of requests."""
        connection = HTTPConnection("proxy")
        with contextlib.closing(connection), self.place.connect("127.0.0.1", PROXY) as connected:
            connection.sock = connected
            yield connection

    def call(self, url: str, *, headers: Mapping[str, str] | None = None) -> Answer:
        """One request, with a whole URL, or with a path and ``Host`` among the headers."""
        with self.connection() as connection:
            return ask(connection, url, headers=headers)

    @contextlib.contextmanager
    def tunnel(self, authority: str) -> Iterator[HTTPConnection]:
        """A CONNECT, and a client of HTTP within it."""
        with self.connect(authority) as (connected, status):
            assert " 200 " in status, status
            connection = HTTPConnection(authority)
            with contextlib.closing(connection):
                connection.sock = connected
                yield connection

    @contextlib.contextmanager
    def connect(self, authority: str) -> Iterator[tuple[socket.socket, str]]:
        """A CONNECT, and the status line of its answer."""
        with self.place.connect("127.0.0.1", PROXY) as connected:
            connected.sendall(f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode())
            yield connected, read_until(connected, b"\r\n\r\n").partition(b"\r\n")[0].decode()


def ask(connection: HTTPConnection, url: str, *, headers: Mapping[str, str] | None = None) -> Answer:
    """One request on a connection."""
    connection.request("GET", url, headers=dict(headers or {}))
    answer = connection.getresponse()
    fields = {name.lower(): value for name, value in answer.getheaders()}
    return Answer(status=answer.status, headers=fields, body=answer.read())


def read_until(connection: socket.socket, mark: bytes) -> bytes:
    """What comes, up to the mark, and nothing of what is behind it."""
    text = b""
    while mark not in text:
        data = connection.recv(1)
        assert data, text
        text += data
    return text


@contextlib.contextmanager
def outsider(cluster: Cluster, *, namespace: str, **env: str) -> Iterator[Outsider]:
    """``krun`` with an application, which says what reached it at 8080 of loopback."""
    settings = {"KRUN_MODE": "whitebox", **env}
    with mesh_workload.workload(cluster, "outsider", namespace=namespace, env=settings) as made:
        yield Outsider(workload=made)


@contextlib.contextmanager
def plain_user(cluster: Cluster, *, namespace: str) -> Iterator[Outsider]:
    """The same, started by a user without any right, and told nothing of modes."""
    name, user = "plain", mesh_workload.APP_USER
    with cluster.network.place(name=name) as place:
        place.resolver(OUTSIDE_RESOLVER)
        env = mesh_workload.environment(cluster, place, name=name, namespace=namespace)
        del env["K8S_UID"]
        for path in (place.folder, *place.folder.iterdir()):
            os.chown(path, user, user)
        argv = [components.command("krun"), "--", *mesh_workload.application(name)]
        with processes.start(place.inside(mesh_workload.as_app(*argv), cwd=place.folder), env=env) as running:
            mesh_workload.wait_until_ready(running)
            made = Workload(name=name, namespace=namespace, account="default", place=place, running=running)
            yield Outsider(workload=made)


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A namespace where only mTLS is taken, with two pods and their services; a host of the world; an outsider."""

    cluster: Cluster
    namespace: str
    web: Pod
    two: Pod
    world: Place
    outsider: Outsider

    def host(self, name: str) -> str:
        """The whole name of a service."""
        return f"{name}.{self.namespace}.svc.cluster.local"


@contextlib.contextmanager
def scene(cluster: Cluster) -> Iterator[Scene]:
    """All of it, until the block ends."""
    namespace = cluster.namespace()
    cluster.apply(mesh_objects.strict(), namespace=namespace)
    cluster.outside.names[NAME] = WORLD
    cluster.kubernetes.service_account("server", namespace=namespace)
    with (
        cluster.pod("web", namespace=namespace, service=False, account="server", labels={"group": "pods"}) as web,
        cluster.pod("two", namespace=namespace, account="server", labels={"group": "pods"}) as two,
        mesh_app.talker(web.place, port=9000, greeting=b"220 hello\r\n"),
        # Of two services with one target port and two protocols, istiod believes one.
        mesh_app.app(web.place, name="web", port=8181),
        cluster.network.place(address=WORLD, name="world") as world,
        mesh_app.app(world, name="world", port=80),
        mesh_app.app(world, name="world", port=8080),
        mesh_app.app(world, name="world", port=9999),
    ):
        cluster.service("web", web, namespace=namespace, ports={"http": (8080, 8080), "http-plain": (80, 8080)})
        cluster.service("talk", web, namespace=namespace, ports={"tcp": (9000, 9000)}, selector={"app": "web"})
        cluster.service("auto", web, namespace=namespace, ports={"any": (8181, 8181)}, selector={"app": "web"})
        with outsider(cluster, namespace=namespace, KRUN_TCP="6379=talk:9000") as made:
            mesh_pod.wait_until_served(made.place, web.place.address)
            mesh_pod.wait_until_served(made.place, two.place.address)
            cluster.settle(made.place, namespace=namespace)
            yield Scene(cluster=cluster, namespace=namespace, web=web, two=two, world=world, outsider=made)
