"""`make bench`, its part with discovery: a mesh found in a real Kubernetes API, beside the same work by others.

``python -m krun_testbed.bench_discover`` runs it alone. The Python client of Kubernetes, 126 MB, is put once into a
virtual environment in the cache folder: nothing of ours needs it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import click

from krun_testbed import docker_engine, kubernetes
from krun_testbed.bench import BARE, System, rounds, table, to_end
from krun_testbed.kubernetes import Kubernetes

NAMESPACE = "team"
CLIENT = "kubernetes==37.0.2"
KNOWN = {
    "XDS_ADDR": "istiod.example:15010",
    "WORKLOAD_NAMESPACE": NAMESPACE,
    "WORKLOAD_NAME": "web",
    "WORKLOAD_SERVICE_ACCOUNT": "default",
    "TRUST_DOMAIN": "td",
    "PROJECT_ID": "p",
    "PROJECT_NUMBER": "7",
    "CLUSTER_NAME": "c",
    "CLUSTER_LOCATION": "l",
}
# What krun-discover and krun-token do, by that client.
BY_CLIENT = f"""
from kubernetes import client, config
config.load_kube_config()
core = client.CoreV1Api()
try:
    data = core.read_namespaced_config_map("mesh-env", "{NAMESPACE}").data
except client.ApiException:
    data = core.read_namespaced_config_map("mesh-env", "istio-system").data
spec = client.V1TokenRequestSpec(audiences=["istio-ca"], expiration_seconds=3600)
made = core.create_namespaced_service_account_token(
    "default", "{NAMESPACE}", client.AuthenticationV1TokenRequest(spec=spec))
assert data["XDS_ADDR"] and made.status.token
"""
BY_CURL = f"""
set -e
call() {{ curl -sS --fail-with-body --cacert "$ROOT" -H "Authorization: Bearer $TOKEN" "$@"; }}
call "$URL/api/v1/namespaces/{NAMESPACE}/configmaps/mesh-env" >/dev/null 2>&1 ||
    call "$URL/api/v1/namespaces/istio-system/configmaps/mesh-env" >/dev/null
call -H 'Content-Type: application/json' "$URL/api/v1/namespaces/{NAMESPACE}/serviceaccounts/default/token" \\
    -d '{{"spec":{{"audiences":["istio-ca"],"expirationSeconds":3600}}}}' >/dev/null
"""


def report(count: int) -> str:
    """The table."""
    with tempfile.TemporaryDirectory() as folder, kubernetes.running() as api:
        api.namespace("istio-system")
        api.namespace(NAMESPACE)
        api.config_map("mesh-env", {"XDS_ADDR": "istiod.example:15010"}, namespace="istio-system")
        return table(rounds(systems(api, folder=Path(folder)), count=count), peer=BARE)


def systems(api: Kubernetes, *, folder: Path) -> list[System]:
    """Ours, and the peers; the user may do everything, so that all ask the same."""
    api.service_account("bench", namespace=NAMESPACE)
    api.apply(
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": "bench"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
            "subjects": [{"kind": "ServiceAccount", "name": "bench", "namespace": NAMESPACE}],
        }
    )
    token = api.token("bench", namespace=NAMESPACE)
    config = api.config_for(folder / "kubeconfig", token=token, namespace=NAMESPACE)
    root = folder / "root.pem"
    root.write_bytes(api.root)
    env = {"KUBECONFIG": str(config), "HOME": str(folder), "ROOT": str(root), "TOKEN": token, "URL": api.url}
    env["KRUN_TOKEN_CACHE"] = "off"  # or only the first round mints one
    tokens = ["--token", f"istio-ca={folder / 'token'}"]
    mint = "krun-token kubernetes --audience istio-ca >/dev/null"
    return [
        System(name=BARE, measure=to_end([sys.executable, "-I", "-c", "pass"])),
        System(name="krun-discover, all known", measure=to_end(["krun-discover"], env=KNOWN)),
        System(name="krun-discover, kubeconfig, mesh-env", measure=to_end(["krun-discover"], env=env)),
        System(name="krun-token kubernetes", measure=to_end(["sh", "-c", mint], env=env)),
        System(name="both, one after the other", measure=to_end(["sh", "-c", f"krun-discover && {mint}"], env=env)),
        System(name="krun-discover --token, all by one", measure=to_end(["krun-discover", *tokens], env=env)),
        System(name="the same by curl", measure=to_end(["sh", "-c", BY_CURL], env=env)),
        System(name="the same by Python's client", measure=to_end([client(), "-c", BY_CLIENT], env=env)),
    ]


def client() -> str:
    """A Python that has the client, made when it is not there."""
    home = docker_engine.cache() / CLIENT
    python = home / "bin" / "python"
    if not (home / "complete").exists():
        click.echo(f"fetching {CLIENT}", err=True)
        subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
        argv = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", CLIENT]
        subprocess.run(argv, check=True)
        (home / "complete").touch()
    return str(python)


@click.command()
@click.option("--rounds", "count", default=11, show_default=True, help="Rounds.")
def main(count: int) -> None:
    """Measure, and print ratios."""
    click.echo(f"{os.cpu_count()} cores, Python {sys.version.split()[0]}, {count} rounds after one thrown away\n")
    click.echo(report(count))


if __name__ == "__main__":
    main()
