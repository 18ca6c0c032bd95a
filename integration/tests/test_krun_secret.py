"""krun-secret and a real kube-apiserver: the role that lets it, each way to the cluster, and what it never shows."""

from __future__ import annotations

import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from string import Template

import pytest

from krun_testbed import components, discover_world, processes, tables
from krun_testbed.discover_world import EMAIL, MESH, World
from krun_testbed.google_api import GoogleApi
from krun_testbed.kubernetes import Kubernetes

pytestmark = pytest.mark.kubernetes

CANARY = "canary-6a1f-0123456789"
VALUES = {"user": "me", "password": CANARY, "empty": ""}
MANIFEST = tables.ROOT / "manifests" / "discover-secret-rbac.yaml"


class Workload:
    """One whose user may get one secret, db, of its namespace; what it runs shows none of its secrets."""

    def __init__(self, *, kubernetes: Kubernetes, namespace: str, folder: Path) -> None:
        self.kubernetes = kubernetes
        self.namespace = namespace
        self.folder = folder
        self.to = folder / "secret"
        self.user = f"{namespace}-workload@demo-project.iam.gserviceaccount.com"
        self.token = kubernetes.outsider(self.user)
        self.config = kubernetes.config_for(folder / "config", token=self.token, namespace=namespace)
        kubernetes.secret("db", VALUES, namespace=namespace)

    def grant(self, user: str = "") -> None:
        text = Template(MANIFEST.read_text(encoding="utf-8")).substitute(
            PRINCIPAL=user or self.user, WORKLOAD_NAMESPACE=self.namespace, WORKLOAD_SECRET="db"
        )
        self.kubernetes.apply(text)

    def run(self, *arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        argv = [components.command("krun-secret"), *(arguments or ("db",)), "--to", str(self.to)]
        own = processes.environment(KUBECONFIG=str(self.config), HOME=str(self.folder))
        done = processes.run(argv, env=env or own)
        assert CANARY not in done.stdout + done.stderr
        assert self.token not in done.stdout + done.stderr
        assert done.stdout == ""
        return done


@pytest.fixture
def workload(kubernetes: Kubernetes, namespace: str, tmp_path: Path) -> Workload:
    return Workload(kubernetes=kubernetes, namespace=namespace, folder=tmp_path)


def seen(folder: Path) -> dict[str, str]:
    found = [path for path in folder.iterdir() if not path.name.startswith("..")]
    return {path.name: path.read_text(encoding="utf-8") for path in found}


def test_the_shipped_role_lets_a_workload_have_its_secret_as_files(workload: Workload) -> None:
    workload.grant()
    assert workload.run().returncode == 0
    assert seen(workload.to) == VALUES
    assert stat.S_IMODE(workload.to.stat().st_mode) == 0o700
    assert stat.S_IMODE((workload.to / "password").stat().st_mode) == 0o600


def test_what_changed_in_the_secret_changes_in_the_files(workload: Workload) -> None:
    workload.grant()
    workload.run()
    workload.kubernetes.admin.delete(f"/api/v1/namespaces/{workload.namespace}/secrets/db")
    done = workload.run()
    assert done.returncode == 78
    assert f"there is no secret db in namespace {workload.namespace}" in done.stderr
    assert seen(workload.to) == VALUES
    workload.kubernetes.secret("db", {"user": "you", "tls.key": "k"}, namespace=workload.namespace)
    assert workload.run().returncode == 0
    assert seen(workload.to) == {"user": "you", "tls.key": "k"}


def test_without_the_role_the_commands_are_told_that_grant_it(workload: Workload) -> None:
    done = workload.run()
    assert done.returncode == 77
    assert f"{workload.user} may not get secrets db in namespace {workload.namespace}" in done.stderr
    assert "kubectl create role krun-secrets-db --verb=get --resource=secrets --resource-name=db" in done.stderr
    assert f"--user={workload.user}" in done.stderr
    assert not workload.to.exists()


def test_the_role_is_for_that_secret_only(workload: Workload) -> None:
    workload.grant()
    workload.kubernetes.secret("other", VALUES, namespace=workload.namespace)
    assert workload.run("other").returncode == 77
    assert workload.run("db", "--namespace", "kube-system").returncode == 77


@pytest.fixture
def world(kubernetes: Kubernetes, google: GoogleApi, address: str, tmp_path: Path) -> Iterator[World]:
    with discover_world.world(kubernetes=kubernetes, google=google, address=address, folder=tmp_path) as made:
        yield made


def test_where_there_is_no_kubeconfig_the_meshs_cluster_is_found_as_by_krun_discover(
    world: World, workload: Workload
) -> None:
    world.google.add(world.kubernetes, "demo", resourceLabels=MESH)
    world.grant(EMAIL, namespace=workload.namespace)
    workload.grant(EMAIL)
    with world.metadata() as server:
        on_run = {"GCE_METADATA_HOST": server.address, "NO_GCE_CHECK": "", "K_SERVICE": "web"}
        env = world.environment(**on_run, WORKLOAD_NAMESPACE=workload.namespace)
        done = workload.run(env=env)
        assert (done.returncode, "secret written" in done.stderr) == (0, True)
        assert seen(workload.to) == VALUES


def test_a_kubeconfig_of_gke_takes_googles_token_without_its_plugin(world: World, workload: Workload) -> None:
    world.google.add(world.kubernetes, "demo", resourceLabels=MESH)
    workload.grant(EMAIL)
    text = workload.config.read_text(encoding="utf-8")
    plugin = "exec: {apiVersion: client.authentication.k8s.io/v1beta1, command: gke-gcloud-auth-plugin}"
    workload.config.write_text(text.replace(f"token: {workload.token}", plugin), encoding="utf-8")
    with world.metadata() as server:
        on_run = {"GCE_METADATA_HOST": server.address, "NO_GCE_CHECK": "", "K_SERVICE": "web"}
        # The proxy knows Google's names only.
        address = world.kubernetes.where()[0]
        done = workload.run(env=world.environment(**on_run, KUBECONFIG=str(workload.config), NO_PROXY=address))
    assert (done.returncode, "secret written" in done.stderr) == (0, True)
    assert seen(workload.to) == VALUES
