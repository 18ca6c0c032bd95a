"""A VM in the mesh as Istio has them: a WorkloadGroup, the files that istioctl writes, and Istio's own start script."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
from collections.abc import Iterator
from pathlib import Path

import yaml

from krun_testbed import components, istio_build, istiod, mesh_agent, mesh_app, mesh_cluster, mesh_objects, processes
from krun_testbed.istio_step_machine import SCRIPT
from krun_testbed.mesh_agent import USER
from krun_testbed.mesh_cluster import Cluster
from krun_testbed.mesh_network import Place

# As the package's user is called; this machine may have none of that name.
NAME = "istio-proxy"


@contextlib.contextmanager
def machine(cluster: Cluster, name: str, *, namespace: str, account: str) -> Iterator[Place]:
    """One that is ready, with an application at 8080; it registers itself, and is the service of its name."""
    group = {
        "apiVersion": mesh_objects.NETWORKING,
        "kind": "WorkloadGroup",
        "metadata": {"name": name},
        "spec": {"metadata": {"labels": {"app": name}}, "template": {"serviceAccount": account}},
    }
    cluster.apply(group, namespace=namespace)
    cluster.service(name, namespace=namespace)
    with cluster.network.place(name=name) as place, mesh_app.app(place, name=name):
        place.resolver(mesh_cluster.OUTSIDE_RESOLVER)
        place.hosts({istiod.SAN: istiod.INSIDE})
        folder = place.folder / "machine"
        _files(folder, cluster, place, name=name, namespace=namespace, account=account)
        script = str(folder / "bin" / Path(SCRIPT).name)
        # What its unit does in one go as root, by sudo; the script has these two parts for who has none.
        env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
        rules = [*mesh_agent.CAPTURE, *mesh_agent.NOT_CAPTURED]
        done = place.run("bash", script, *rules, env=env, cwd=folder)
        if done.returncode != 0:
            raise AssertionError(f"{script}: {done.returncode}: {done.stderr}")
        user = [f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "--pdeathsig=KILL"]
        setpriv = components.program("setpriv", package="util-linux")
        argv = place.inside([setpriv, *user, "bash", script, "run"], cwd=folder)
        with processes.start(argv, env={**env, "USER": NAME, "EXEC_USER": NAME}) as running, mesh_agent.ending(running):

            def is_up() -> bool:
                if running.ends(timeout=0):
                    raise AssertionError(f"{script} ended\n{running.said()[-4000:]}")
                return mesh_agent.is_ready(place)

            processes.wait_until(is_up, what=f"{name} is ready", timeout=mesh_agent.READY, poll=0.02)
            yield place


def _files(folder: Path, cluster: Cluster, place: Place, *, name: str, namespace: str, account: str) -> None:
    """What `istioctl x workload entry configure` writes, put where its manual says, and the package's files."""
    version = cluster.istiod.version
    (agent,) = istio_build.make(istio_build.AGENT, version=version)
    token = cluster.kubernetes.token(account, namespace=namespace, audiences=(istiod.AUDIENCE,))
    settings = {
        "ISTIO_BIN_BASE": str(folder / "bin"),
        "ISTIO_INBOUND_PORTS": "*",
        "ISTIO_LOCAL_EXCLUDE_PORTS": "22,15090,15021,15020",
        "ISTIO_METAJSON_LABELS": json.dumps({"app": name, "service.istio.io/canonical-name": name}),
        "ISTIO_META_AUTO_REGISTER_GROUP": name,
        "ISTIO_META_CLUSTER_ID": "Kubernetes",
        "ISTIO_META_DNS_CAPTURE": "true",
        "ISTIO_META_MESH_ID": "",
        "ISTIO_META_NETWORK": "",
        "ISTIO_META_WORKLOAD_NAME": name,
        "ISTIO_NAMESPACE": namespace,
        "ISTIO_SERVICE": f"{name}.{namespace}",
        "ISTIO_SERVICE_CIDR": "*",
        "ISTIO_SVC_IP": place.address,
        "POD_NAME": f"{name}-1",
        "POD_NAMESPACE": namespace,
        "SERVICE_ACCOUNT": account,
        "TRUST_DOMAIN": "cluster.local",
        "CLOUD_PLATFORM": "none",
    }
    defaults = {"discoveryAddress": f"{istiod.SAN}:{istiod.XDS}", "binaryPath": components.envoy(), "concurrency": 1}
    files = {
        f"bin/{Path(SCRIPT).name}": (istio_build.source(version=version) / SCRIPT).read_text(encoding="utf-8"),
        "var/lib/istio/envoy/cluster.env": "".join(f"{key}={shlex.quote(value)}\n" for key, value in settings.items()),
        "var/lib/istio/envoy/envoy_bootstrap_tmpl.json": istio_build.file(
            istio_build.TEMPLATE, version=version
        ).read_text(encoding="utf-8"),
        "var/run/secrets/tokens/istio-token": token,
        "etc/certs/root-cert.pem": cluster.istiod.root(namespace=namespace),
        "etc/istio/config/mesh": yaml.safe_dump({"defaultConfig": defaults}),
    }
    for path in ("etc/istio/proxy", "var/log/istio"):
        (folder / path).mkdir(parents=True)
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")
    for each in (folder, *folder.rglob("*")):
        os.chown(each, USER, USER)
    (folder / "bin" / "pilot-agent").symlink_to(agent)
