"""A namespace for tests of capture: a workload outside whose traffic is captured, pods around it, and the world."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from krun_testbed import mesh_agent, mesh_app, mesh_gate, mesh_pod, mesh_workload, processes
from krun_testbed.mesh_call import Answer
from krun_testbed.mesh_cluster import SUFFIX, Cluster
from krun_testbed.mesh_gate import Gate
from krun_testbed.mesh_pod import Pod
from krun_testbed.mesh_workload import Workload

# Hosts of the world around, which are in no mesh: their names, and addresses that are captured and that are not.
CAPTURED_HOST, OTHER_HOST = "captured.example", "other.example"
WORLD = {CAPTURED_HOST: "10.77.0.10", OTHER_HOST: "198.51.100.10"}
GREETING = b"220 server first\r\n"


@dataclass(frozen=True, kw_only=True)
class World:
    """A workload outside; two pods in the mesh, and one without a sidecar; a server of the world around.

    Services ``web`` and ``bare``: HTTP at 8080 and 80, TCP whose server speaks first at 9000; ``other``, ``a``: 8080.
    """

    cluster: Cluster
    namespace: str
    a: Workload
    web: Pod
    other: Pod
    bare: Pod
    gate: Gate

    @contextlib.contextmanager
    def applied(self, *objects: Mapping[str, Any]) -> Iterator[None]:
        """Objects that all proxies have within the block, and none after it."""
        admin = self.cluster.kubernetes.admin
        made = self.cluster.apply(*objects, namespace=self.namespace)
        try:
            self.settle()
            yield
        finally:
            for each in made:
                admin.delete(admin.path_of(each))
            self.settle()

    def settle(self) -> None:
        """Wait until all proxies have what was applied before."""
        self.cluster.settle(self.a.place, self.web.place, self.other.place, namespace=self.namespace)

    def address(self, name: str) -> str:
        """The ClusterIP of a service here."""
        return self.cluster.names.names[f"{name}.{self.namespace}.{SUFFIX}"]

    def principal(self, account: str) -> str:
        """A service account here, as policies name it."""
        return f"cluster.local/ns/{self.namespace}/sa/{account}"

    def get(self, url: str, *arguments: str) -> Answer:
        """What the application outside gets, by curl and its own resolver."""
        body, _, status = self.a.curl("--write-out", "\n%{http_code}", *arguments, url).rpartition("\n")
        return Answer(status=int(status), headers={}, body=body.encode())

    def call(self, pod: Pod, name: str, path: str = "/") -> Answer:
        """What a pod's application gets of a service here at 8080."""
        return pod.call(f"http://{name}:8080{path}", to=self.address(name))


def until(status: int, ask: Callable[[], Answer]) -> Answer:
    """Ask until the answer has this status: connections that are open already keep to older rules for a moment."""
    answers = [ask()]

    def is_it() -> bool:
        answers.append(ask())
        return answers[-1].status == status

    if answers[-1].status != status:
        processes.wait_until(is_it, what=f"status {status}", poll=0.1)
    return answers[-1]


@contextlib.contextmanager
def world(cluster: Cluster) -> Iterator[World]:
    """All of it, until the block ends."""
    namespace = cluster.namespace()
    for account in ("outside", "web"):
        cluster.kubernetes.service_account(account, namespace=namespace)
    cluster.network.own(*WORLD.values())
    cluster.outside.names.update(WORLD)
    ports = {"http": (8080, 8080), "http-80": (80, 8080), "tcp": (9000, 9000)}
    with (
        contextlib.ExitStack() as around,
        cluster.gate() as gate,
        cluster.pod("web", namespace=namespace, account="web", service=False) as web,
        cluster.pod("other", namespace=namespace) as other,
        cluster.pod("bare", namespace=namespace, sidecar=False, service=False) as bare,
        mesh_app.talker(bare.place, port=9000, greeting=GREETING),
        mesh_app.talker(web.place, port=9000, greeting=GREETING),
    ):
        # At its own addresses only: the hub's port 80 is that of other servers, too.
        for address in WORLD.values():
            around.enter_context(mesh_app.app(cluster.network.hub, name="around", port=80, address=address))
        cluster.service("web", web, namespace=namespace, ports=ports)
        cluster.service("bare", bare, namespace=namespace, ports=ports)
        cluster.register("a", gate, namespace=namespace, account="outside")
        with mesh_workload.workload(cluster, "a", namespace=namespace, account="outside") as a:
            gate.lead(a.place, mesh_gate.server_name(a.host, 8080))
            made = World(
                cluster=cluster,
                namespace=namespace,
                a=a,
                web=web,
                other=other,
                bare=bare,
                gate=gate,
            )
            made.settle()
            for pod in (web, other, bare):
                mesh_pod.wait_until_served(a.place, pod.place.address)
            for pod in (web, other):
                mesh_pod.wait_until_served(pod.place, gate.address)
            mesh_agent.wait_for_config(a.place, "_15003")
            yield made


def running(workload: Workload) -> dict[str, int]:
    """The processes below krun, by the name of their program; the application is ``mesh_app``."""
    found: dict[str, int] = {}
    for pid in processes.children(workload.running.pid):
        argv = _words(pid, "cmdline")
        name = "mesh_app" if "krun_testbed.mesh_app" in argv else argv[0].rpartition("/")[2].partition("-v0")[0]
        found[name] = pid
    return found


def environment(pid: int) -> dict[str, str]:
    """The variables of a process, as the kernel has them."""
    return dict(pair.partition("=")[::2] for pair in _words(pid, "environ"))


def _words(pid: int, name: str) -> list[str]:
    return Path(f"/proc/{pid}/{name}").read_text(encoding="utf-8").split("\0")[:-1]
