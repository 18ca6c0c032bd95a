"""Istiod's root certificates without mesh-env: read where Istio puts them, by the role that is shipped."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from string import Template

import pytest

from krun_testbed import mesh_workload, processes, tables
from krun_testbed.certificates import Authority
from krun_testbed.kubernetes import Kubernetes
from krun_testbed.kubernetes_kubeconfig import by_token, kubeconfig
from krun_testbed.mesh_cluster import Cluster

ISTIOD = "istiod.example:15012"
NAME, KEY = "istio-ca-root-cert", "root-cert.pem"
Discover = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def discover(kubernetes: Kubernetes, namespace: str, tmp_path: Path) -> Discover:
    """krun-discover as a workload with the role that is shipped, which is told where istiod is."""
    principal = f"{namespace}@demo-project.iam.gserviceaccount.com"
    text = (tables.ROOT / "manifests" / "discover-rbac.yaml").read_text(encoding="utf-8")
    variables = {"PRINCIPAL": principal, "WORKLOAD_NAMESPACE": namespace, "WORKLOAD_SERVICE_ACCOUNT": "default"}
    kubernetes.namespace("istio-system")
    kubernetes.apply(Template(text).substitute(variables))
    config = tmp_path / "config"
    user = by_token(kubernetes.outsider(principal))
    config.write_text(kubeconfig(server=kubernetes.url, root=kubernetes.root, user=user, namespace=namespace))

    def run(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        told = {"KUBECONFIG": str(config), "NO_GCE_CHECK": "true", "KRUN_LOG_FORMAT": "text", "XDS_ADDR": ISTIOD}
        return processes.run(["krun-discover", *arguments], env=processes.environment(**{**told, **env}))

    return run


def found(done: subprocess.CompletedProcess[str]) -> str:
    """The roots that it printed."""
    assert done.returncode == 0, done.stderr
    return str(json.loads(done.stdout).get("CAROOT_ISTIOD", ""))


@pytest.mark.kubernetes
def test_roots_are_those_of_the_workloads_namespace_where_nobody_else_tells_them(
    kubernetes: Kubernetes, namespace: str, discover: Discover, authority: Authority
) -> None:
    kubernetes.config_map(NAME, {KEY: authority.root.decode()}, namespace=namespace)
    assert found(discover()) == authority.root.decode().strip()
    explained = discover("--explain").stdout
    assert f"> {NAME}: {NAME} in {namespace}\n" in explained
    assert "- mesh-env" in explained


@pytest.mark.kubernetes
def test_roots_of_mesh_env_and_of_the_environment_come_first_and_nothing_more_is_asked(
    kubernetes: Kubernetes, namespace: str, discover: Discover, authority: Authority
) -> None:
    other = Authority().root.decode().strip()
    kubernetes.config_map(NAME, {KEY: authority.root.decode()}, namespace=namespace)
    kubernetes.config_map("mesh-env", {"CAROOT_ISTIOD": other}, namespace=namespace)
    assert found(discover()) == other
    assert found(discover(CAROOT_ISTIOD="given")) == "given"
    assert f"configmaps/{NAME}" not in discover("--explain").stdout


@pytest.mark.kubernetes
@pytest.mark.parametrize("address", ["meshconfig.googleapis.com:443", "xds.example:15010", "-"])
def test_other_control_planes_than_istiod_have_no_such_roots(
    kubernetes: Kubernetes, namespace: str, discover: Discover, authority: Authority, address: str
) -> None:
    kubernetes.config_map(NAME, {KEY: authority.root.decode()}, namespace=namespace)
    assert found(discover(XDS_ADDR=address)) == ""


@pytest.mark.kubernetes
def test_whoever_may_not_read_them_is_told_so_and_goes_on(
    kubernetes: Kubernetes, namespace: str, discover: Discover, authority: Authority
) -> None:
    kubernetes.config_map(NAME, {KEY: authority.root.decode()}, namespace=namespace)
    role = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}/roles/krun-discover:default"
    made = kubernetes.admin.get(role)
    del made["metadata"]["managedFields"]
    # As a cluster has it that took the role of an earlier version.
    made["rules"][0]["resourceNames"] = ["mesh-env"]
    kubernetes.apply(made)
    done = discover()
    assert found(done) == ""
    assert f'the roots of istiod cannot be read source="{NAME} in {namespace}"' in done.stderr
    explained = discover("--explain").stdout
    assert f"  - {NAME}:" in explained
    assert f"configmaps/{NAME}: 403" in explained


@pytest.mark.kubernetes
@pytest.mark.parametrize("text", ["", "no certificate", "-----BEGIN CERTIFICATE-----\nMII"])
def test_what_is_no_certificate_is_not_taken(
    kubernetes: Kubernetes, namespace: str, discover: Discover, text: str
) -> None:
    assert f"there is no {NAME} in {namespace}" in discover("--explain").stdout
    kubernetes.config_map(NAME, {KEY: text}, namespace=namespace)
    assert found(discover()) == ""
    reason = "not certificates in PEM" if text else f"no {KEY} in it"
    assert f"{NAME} in {namespace}: {reason}" in discover("--explain").stdout


@pytest.mark.mesh
def test_a_workload_that_is_told_no_roots_is_in_the_mesh_all_the_same(cluster: Cluster) -> None:
    namespace = cluster.namespace()
    with (
        cluster.pod("peer", namespace=namespace),
        mesh_workload.workload(cluster, "web", namespace=namespace, env={"CAROOT_ISTIOD": ""}) as web,
    ):
        web.wait_for_config("peer")
        answer = json.loads(web.curl("http://peer:8080/"))
        assert answer["name"] == "peer"
        assert f"URI={web.identity}" in answer["headers"]["x-forwarded-client-cert"]
