"""A real istiod for a real Kubernetes API, in a network of the testbed's own.

``python -m krun_testbed.istiod`` runs it with all that it needs, and says how to reach it.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import click
import yaml

from krun_testbed import components, istio_build, kubernetes_server, mesh_network, mesh_sockets, processes
from krun_testbed import kubernetes as kubernetes_api
from krun_testbed.certificates import write
from krun_testbed.components import Missing
from krun_testbed.kubernetes import Kubernetes
from krun_testbed.kubernetes_client import ApiError
from krun_testbed.kubernetes_kubeconfig import by_certificate, kubeconfig
from krun_testbed.mesh_network import Network

NAMESPACE = "istio-system"
SAN = "istiod.istio-system.svc"
AUDIENCE = "istio-ca"  # of the tokens that it takes
ROOT = "istio-ca-root-cert"  # the config map with its root that it writes into every namespace
# Where it is found: inside of 10.0.0.0/8, which workloads capture, and outside of it; so the API server.
INSIDE, OUTSIDE = "10.128.0.20", "203.0.113.20"
API_INSIDE, API_OUTSIDE = kubernetes_server.PRIVATE, kubernetes_server.PUBLIC
XDS, DEBUG = 15012, 8080
STARTUP = 90.0  # seconds; some three on a machine that has nothing else to do
MESH: Mapping[str, Any] = {"trustDomain": "cluster.local", "defaultConfig": {"discoveryAddress": f"{SAN}:{XDS}"}}
SETTINGS = {
    "POD_NAMESPACE": NAMESPACE,
    "POD_NAME": "istiod-0",
    "SERVICE_ACCOUNT": "istiod",
    "CLUSTER_ID": "Kubernetes",
    "CLOUD_PLATFORM": "none",
    # Envoy here is the one without Istio's own extensions.
    "PILOT_ENABLE_METADATA_EXCHANGE": "false",
    "PILOT_ENABLE_ALPN_FILTER": "false",
    # A change is with the proxies at once: tests wait for each.
    "PILOT_DEBOUNCE_AFTER": "10ms",
}


@dataclass(kw_only=True)
class Istiod:
    """The control plane that runs, and may be stopped and started again."""

    kubernetes: Kubernetes
    network: Network
    version: str
    argv: list[str]
    environment: dict[str, str]
    folder: Path
    process: processes.Running | None = None
    _stack: contextlib.ExitStack = field(default_factory=contextlib.ExitStack, repr=False)

    def start(self, **environment: str) -> None:
        """Start it, with these settings beside its own, and wait until it is ready."""
        bound = [components.program("setpriv", package="util-linux"), "--pdeathsig", "KILL"]
        argv = self.network.hub.inside([*bound, *self.argv], cwd=self.folder)
        running = self._stack.enter_context(processes.start(argv, env={**self.environment, **environment}))
        self.process = running

        def is_ready() -> bool:
            if running.ends(timeout=0):
                raise AssertionError(f"istiod ended\n{running.said()[-4000:]}")
            try:
                return self._get("/ready")[0] == 200
            except OSError:
                return False

        processes.wait_until(is_ready, what="istiod is ready", timeout=STARTUP, poll=0.05)

    def stop(self) -> None:
        """Kill it: who is connected sees the connection break, who comes is refused."""
        if self.process is not None:
            self.process.signal(signal.SIGKILL)
            self._stack.close()
            self.process = None

    def debug(self, path: str) -> Any:
        """What one of its debug pages says, such as /debug/syncz."""
        status, body = self._get(path)
        if status != 200:
            raise AssertionError(f"{path}: {status}: {body.decode(errors='replace')[:400]}")
        return json.loads(body)

    def root(self, *, namespace: str = NAMESPACE) -> str:
        """Its root certificate, PEM, as it wrote it into a namespace; it does so a moment after one is made."""
        path = f"/api/v1/namespaces/{namespace}/configmaps/{ROOT}"
        found: list[str] = []

        def is_there() -> bool:
            try:
                found.append(self.kubernetes.admin.get(path)["data"]["root-cert.pem"])
            except ApiError as error:
                if error.status != 404:
                    raise
            return bool(found)

        processes.wait_until(is_there, what=f"{ROOT} in {namespace}")
        return found[0]

    def _get(self, path: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("localhost")
        with contextlib.closing(connection), self.network.hub.connect("127.0.0.1", DEBUG) as connected:
            connection.sock = connected
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read()


@contextlib.contextmanager
def running(
    kubernetes: Kubernetes,
    network: Network,
    *,
    version: str = istio_build.NEWEST,
    mesh: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Istiod]:
    """Istiod until the block ends, at INSIDE and OUTSIDE of the network's hub; the API server is at API_… there.

    ``mesh``: further options of the mesh; ``environment``: further settings of istiod. Missing when it cannot be built.
    """
    (program,) = istio_build.make(istio_build.CONTROL_PLANE, version=version)
    network.own(INSIDE, OUTSIDE, API_INSIDE, API_OUTSIDE)
    _prepare(kubernetes, version=version, mesh={**MESH, **(mesh or {})})
    with tempfile.TemporaryDirectory(prefix="krun-istiod-") as folder, contextlib.ExitStack() as stack:
        for address in (API_INSIDE, API_OUTSIDE):
            stack.enter_context(_door(network, address, kubernetes))
        config = Path(folder) / "kubeconfig"
        user = by_certificate(kubernetes.certificate("istiod", groups=("system:masters",)))
        text = kubeconfig(server=f"https://{API_INSIDE}", root=kubernetes.root, user=user)
        write(path=config, content=text.encode())
        made = Istiod(
            kubernetes=kubernetes,
            network=network,
            version=version,
            argv=[str(program), "discovery", "--kubeconfig", str(config), "--httpAddr", f":{DEBUG}"],
            environment={"PATH": "/usr/bin:/bin", "HOME": folder, **SETTINGS, **(environment or {})},
            folder=Path(folder),
        )
        stack.callback(made.stop)
        made.start()
        yield made


def _prepare(kubernetes: Kubernetes, *, version: str, mesh: Mapping[str, Any]) -> None:
    kubernetes.namespace(NAMESPACE)
    kubernetes.config_map("istio", {"mesh": yaml.safe_dump(dict(mesh))}, namespace=NAMESPACE)
    text = istio_build.file(istio_build.DEFINITIONS, version=version).read_text(encoding="utf-8")
    # A megabyte of YAML: the loader in C reads it in a tenth of the time.
    kubernetes.apply(*filter(None, yaml.load_all(text, Loader=yaml.CSafeLoader)))


@contextlib.contextmanager
def _door(network: Network, address: str, kubernetes: Kubernetes) -> Iterator[None]:
    """The API server, which listens on loopback of the machine, at an address of the hub."""
    where = kubernetes.where()

    def serve(connected: socket.socket) -> None:
        with socket.create_connection(where) as there:
            mesh_sockets.relay(connected, there)

    with mesh_sockets.serving(network.hub.listener(address, 443), serve):
        yield


@click.command()
def main() -> None:
    """Serve a mesh's control plane until SIGTERM; one line on stderr says when, and how to reach it."""
    ended = threading.Event()

    def end(number: int, frame: FrameType | None) -> None:
        ended.set()

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    try:
        with (
            kubernetes_api.running() as kubernetes,
            mesh_network.network() as network,
            running(kubernetes, network) as made,
        ):
            where = f"hub=/proc/{network.hub.pid}/ns/net xds={INSIDE}:{XDS} kubeconfig={kubernetes.kubeconfig}"
            sys.stderr.write(f"krun_testbed.istiod: ready version={made.version} {where}{os.linesep}")
            sys.stderr.flush()
            ended.wait()
    except Missing as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    main()
