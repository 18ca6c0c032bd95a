"""hgate in a place, as a Pod of its Deployment runs it: another user without rights, the cluster's names and files."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from krun_testbed import components, hgate_doors, istiod, mesh_call, mesh_pod, processes
from krun_testbed.certificates import write
from krun_testbed.mesh_call import Answer
from krun_testbed.mesh_cluster import Cluster
from krun_testbed.mesh_network import Place
from krun_testbed.processes import Running

PORT = 15442
STATUS = 15019
USER = 65532
MOUNTED = "/var/run/secrets/kubernetes.io/serviceaccount"
READY = 180.0  # seconds; some two on a machine that has nothing else to do
IS_READY = r'"message": "ready"'
SECRET = re.compile(r"eyJ[\w-]{10}|ya29\.|[Bb]earer [\w.-]{20}")  # JWTs, access tokens, headers
LOG = {"KRUN_LOG_FORMAT": "json"}


@dataclass(frozen=True, kw_only=True)
class Replica:
    """One that runs."""

    name: str
    place: Place
    running: Running

    @property
    def lines(self) -> list[dict[str, Any]]:
        """What it logged."""
        whole = self.running.stderr.rpartition("\n")[0]
        return [json.loads(line) for line in whole.splitlines() if line.startswith("{")]

    def said(self, message: str, **fields: Any) -> list[dict[str, Any]]:
        """Its lines with this message and these fields."""
        return [line for line in self.lines if {"message": message, **fields}.items() <= line.items()]

    def wait_for(self, pattern: str, *, timeout: float = processes.WAIT) -> None:
        """Wait until its log holds the regular expression."""
        self.running.wait_for(pattern, timeout=timeout)

    def status(self, path: str) -> Answer:
        """What it answers at its port for probes and metrics, as the kubelet asks."""
        return mesh_call.call(self.place, f"http://{self.place.address}:{STATUS}{path}")

    def metric(self, name: str) -> float:
        """The sum of a metric over all its labels."""
        text = self.status("/metrics").body.decode()
        return sum(float(value) for value in re.findall(rf"^{name}(?:\{{[^}}]*\}})? (\S+)$", text, re.MULTILINE))

    def kill(self) -> None:
        """End it and its workers without a word."""
        os.killpg(self.running.pid, signal.SIGKILL)
        self.running.wait()


def static(routes: Mapping[str, str]) -> list[str]:
    """Arguments for routes by hand: NAME.NAMESPACE to URL, with tokens of the metadata server."""
    listed = [word for name, url in routes.items() for word in ("--route", f"{name}={url}")]
    return ["--listen", f"0.0.0.0:{PORT}", *listed, "--token-command", hgate_doors.TOKEN_COMMAND]


@contextlib.contextmanager
def replica(
    cluster: Cluster,
    *,
    root: bytes,
    name: str = "hgate-0",
    address: str = "",
    args: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    token: str = "",
    user: int = USER,
    until: str = IS_READY,
) -> Iterator[Replica]:
    """hgate, ready. ``root``: whom it believes beside the API server; ``token``: of its service account, if any.

    ``until``: what its log says when it has started, if not that it is ready.
    """
    with cluster.network.place(address=address, name=name) as place:
        domains = [f"{istiod.NAMESPACE}.svc.cluster.local", "svc.cluster.local", "cluster.local"]
        place.resolver(mesh_pod.RESOLVER, search=domains)
        write(path=place.folder / "roots.pem", content=root)
        (place.folder / "roots.pem").chmod(0o644)
        inside = {}
        if token:
            mount(place, cluster=cluster, token=token, user=user)
            inside = {"KUBERNETES_SERVICE_HOST": hgate_doors.API_NAME, "KUBERNETES_SERVICE_PORT": "443"}
        settings = environment(place, **{**LOG, **inside, **(env or {})})
        argv = place.inside(as_user(components.command("hgate"), *args, user=user))
        with processes.start(argv, env=settings) as running, ending(running):
            made = Replica(name=name, place=place, running=running)
            made.wait_for(until, timeout=READY)
            yield made
        found = SECRET.search(running.said())
        assert found is None, f"a token in the log: {running.said()[found.start() - 200 : found.start()]}"


@contextlib.contextmanager
def ending(running: Running) -> Iterator[None]:
    """Kill it and its workers when the block ends: asked to end, it would wait for connections that are open."""
    try:
        yield
    finally:
        if not running.ends(timeout=0):
            os.killpg(running.pid, signal.SIGKILL)


def environment(place: Place, **env: str) -> dict[str, str]:
    """A container's: nothing of this machine, but where our programs are."""
    roots = str(place.folder / "roots.pem")
    given = processes.environment(**{"KRUN_CA_FILE": roots, "SSL_CERT_FILE": roots, "HOME": "/", **env})
    for name in ("NO_GCE_CHECK", "KRUN_ENVOY"):
        del given[name]
    return given


def as_user(*argv: str, user: int = USER) -> list[str]:
    """The command line of a command as the Deployment's user, who can never have a right."""
    setpriv = components.program("setpriv", package="util-linux")
    who = [f"--reuid={user}", f"--regid={user}", "--clear-groups", "--inh-caps=-all", "--bounding-set=-all"]
    return [setpriv, *who, "--no-new-privs", "--pdeathsig=KILL", *argv]


def mount(place: Place, *, cluster: Cluster, token: str, user: int) -> None:
    """The files that a kubelet mounts into a pod of a service account, for its user only."""
    files = {"token": token, "ca.crt": cluster.kubernetes.root.decode(), "namespace": istiod.NAMESPACE}
    for name, text in files.items():
        target = Path(MOUNTED) / name
        argv = ["install", "-D", "-m", "0400", "-o", str(user), "/dev/stdin", str(target)]
        done = processes.run(place.inside(argv), stdin=text)
        if done.returncode != 0:
            raise AssertionError(f"{target}: {done.stderr}")
