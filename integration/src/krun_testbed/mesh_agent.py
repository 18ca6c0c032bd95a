"""A pod's pilot-agent and its Envoy, started as Istio's injection template starts them, and its capture."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from krun_testbed import components, istio_build, istiod, mesh_call, processes
from krun_testbed.mesh_network import Place

USER = 1337  # of the proxy
READY = 120.0  # seconds; a fourth of one on a machine that has nothing else to do
CAPTURE = ("-p", "15001", "-z", "15006", "-u", str(USER), "-m", "REDIRECT", "-i", "*", "-x", "", "-b", "*")
NOT_CAPTURED = ("-d", "15090,15021,15020")


@dataclass(frozen=True, kw_only=True)
class Identity:
    """Who a proxy is."""

    name: str
    namespace: str
    account: str
    labels: Mapping[str, str]
    token: str
    root: str


@dataclass(frozen=True, kw_only=True)
class Agent:
    """The agent that runs."""

    place: Place
    running: processes.Running

    def ready(self) -> bool:
        """Tell whether it says so at 15021, as the kubelet asks."""
        return is_ready(self.place)


def is_ready(place: Place) -> bool:
    """Tell whether a proxy in the place is ready."""
    try:
        return mesh_call.admin(place, "/healthz/ready", port=15021).status == 200
    except OSError:
        return False


def config(place: Place) -> str:
    """All that a proxy holds of configuration, endpoints too."""
    return mesh_call.admin(place, "/config_dump?include_eds").body.decode()


def wait_for_config(place: Place, pattern: str, *, timeout: float = processes.WAIT) -> None:
    """Wait until a proxy's configuration has what the regular expression says."""
    processes.wait_until(
        lambda: re.search(pattern, config(place)) is not None,
        what=f"{pattern} is in the proxy's configuration",
        timeout=timeout,
    )


def capture(place: Place, *flags: str, version: str) -> None:
    """Bring the rules of an injected pod into its kernel, by Istio's own program; further flags come last."""
    place.must(str(istio_build.binary(version=version)), "istio-iptables", *CAPTURE, *NOT_CAPTURED, *flags)


@contextlib.contextmanager
def agent(place: Place, identity: Identity, *, version: str, **options: Any) -> Iterator[Agent]:
    """The agent and its Envoy, ready; see ``started`` for options."""
    with started(place, identity, version=version, **options) as running:
        made = Agent(place=place, running=running)

        def is_up() -> bool:
            if running.ends(timeout=0):
                raise AssertionError(f"pilot-agent ended\n{running.said()[-4000:]}")
            return made.ready()

        try:
            processes.wait_until(is_up, what="pilot-agent is ready", timeout=READY, poll=0.02)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{running.said()[-4000:]}") from error
        yield made


@contextlib.contextmanager
def started(
    place: Place,
    identity: Identity,
    *,
    version: str,
    proxy_config: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Iterator[processes.Running]:
    """The agent, which starts its Envoy, as 1337; it finds istiod as pods do, by the cluster's names."""
    folder = place.folder / "agent"
    _files(folder, identity, version=version)
    (binary,) = istio_build.make(istio_build.AGENT, version=version)
    setpriv = components.program("setpriv", package="util-linux")
    user = [f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "--pdeathsig=KILL"]
    domain = f"{identity.namespace}.svc.cluster.local"
    argv = [setpriv, *user, str(binary), "proxy", "sidecar", "--domain", domain]
    settings = {**(proxy_config or {}), "binaryPath": components.envoy()}
    env = {
        "PATH": "/usr/bin:/bin",
        "PILOT_CERT_PROVIDER": "istiod",
        "CA_ADDR": f"{istiod.SAN}:{istiod.XDS}",
        "POD_NAME": identity.name,
        "POD_NAMESPACE": identity.namespace,
        "INSTANCE_IP": place.address,
        "SERVICE_ACCOUNT": identity.account,
        "TRUST_DOMAIN": "cluster.local",
        "CLOUD_PLATFORM": "none",
        "PROXY_CONFIG": json.dumps({"discoveryAddress": f"{istiod.SAN}:{istiod.XDS}", "concurrency": 1, **settings}),
        "ISTIO_META_CLUSTER_ID": "Kubernetes",
        "ISTIO_META_INTERCEPTION_MODE": "REDIRECT",
        "ISTIO_META_WORKLOAD_NAME": identity.labels.get("app", identity.name),
        "ISTIO_META_MESH_ID": "cluster.local",
        **(environment or {}),
    }
    with processes.start(place.inside(argv, cwd=folder), env=env) as running, ending(running):
        yield running


@contextlib.contextmanager
def ending(running: processes.Running) -> Iterator[None]:
    """Kill an agent when the block ends: asked to end, it would drain for five seconds."""
    try:
        yield
    finally:
        if not running.ends(timeout=0):
            running.signal(signal.SIGKILL)


def _files(folder: Path, identity: Identity, *, version: str) -> None:
    """What a pod's volumes hold, owned by the proxy."""
    template = istio_build.file(istio_build.TEMPLATE, version=version).read_text(encoding="utf-8")
    files = {
        "etc/istio/pod/labels": "".join(f'{key}="{value}"\n' for key, value in identity.labels.items()),
        "etc/istio/pod/annotations": "",
        "var/run/secrets/tokens/istio-token": identity.token,
        "var/run/secrets/istio/root-cert.pem": identity.root,
        "var/lib/istio/envoy/envoy_bootstrap_tmpl.json": template,
    }
    folder.mkdir()
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    (folder / "etc/istio/proxy").mkdir()
    for path in (folder, *folder.rglob("*")):
        # Keys and tokens are nobody else's.
        path.chmod(0o700 if path.is_dir() else 0o600)
        os.chown(path, USER, USER)
