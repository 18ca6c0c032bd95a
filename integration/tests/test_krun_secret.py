"""krun-secret and a real kube-apiserver: the role that lets it, each way to the cluster, and what it never shows."""

from __future__ import annotations

import base64
import datetime
import re
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from string import Template

import pytest

from krun_testbed import components, discover_world, processes, tables
from krun_testbed.certificates import Authority
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


def broken(workload: Workload, how: str) -> tuple[int, str]:
    """Break something on the way to the API server; the status and the words that must follow."""
    kubernetes, config, text = workload.kubernetes, workload.config, workload.config.read_text(encoding="utf-8")
    token = f"token: {workload.token}"
    match how:
        case "file":
            config.write_text(text.replace(token, f"token: [{workload.token}"), encoding="utf-8")
            return 65, f"{config}: line "
        case "cluster":
            config.write_text(text.replace("server: https", "server: ftp"), encoding="utf-8")
            return 65, f"{config}: clusters[name=test].cluster.server: is no URL of a server"
        case "context":
            config.write_text(text.replace("current-context: test", "current-context: prod"), encoding="utf-8")
            return 78, "there is no context 'prod'\nhint: known contexts: test"
        case "token file":
            config.write_text(text.replace(token, "tokenFile: nowhere"), encoding="utf-8")
            return 78, f"tokenFile: {config.parent}/nowhere cannot be read: No such file"
        case "plugin":
            program = workload.folder / "plugin"
            script = f"#!/bin/sh\necho {workload.token}\necho sign in first, $TOKEN >&2\nexit 7\n"
            program.write_text(script, encoding="utf-8")
            program.chmod(0o755)
            env = f"env: [{{name: TOKEN, value: {workload.token}}}]"
            plugin = f"{{apiVersion: client.authentication.k8s.io/v1, command: ./plugin, {env}}}"
            config.write_text(text.replace(token, f"exec: {plugin}"), encoding="utf-8")
            return 77, "users[name=test].user.exec: plugin ended with status 7: sign in first, ***"
        case "certificate":
            pair = kubernetes.server.clients.certificate(user=workload.user, life=-datetime.timedelta(hours=1))
            kubernetes.config_for(config, certificate=pair)
            return 77, "client-certificate-data has expired on 20"
        case "token":
            config.write_text(text.replace(workload.token, f"other.{CANARY}"), encoding="utf-8")
            return 77, "users[name=test].user.token: not accepted (HTTP 401)"
        case "authority":
            root = base64.b64encode(Authority().root).decode()
            changed = re.sub("certificate-authority-data: .*", f"certificate-authority-data: {root}", text)
            config.write_text(changed, encoding="utf-8")
            return 69, "its certificate is not trusted"
        case "proxy":
            proxy = f"proxy-url: http://me:{CANARY}@127.0.0.1:1"
            config.write_text(text.replace("server: ", f"{proxy}\n    server: "), encoding="utf-8")
            return 69, "the proxy refused the connection\nhint: the way leads through the kubeconfig's proxy-url"
    raise AssertionError(how)


@pytest.mark.parametrize(
    "how", ["file", "cluster", "context", "token file", "plugin", "certificate", "token", "authority", "proxy"]
)
def test_what_is_broken_on_the_way_is_told_with_its_status_and_without_secrets(workload: Workload, how: str) -> None:
    workload.grant()
    status, words = broken(workload, how)
    done = workload.run("db", "--timeout", "10")
    assert (done.returncode, words in done.stderr) == (status, True), done.stderr
    assert done.stderr.count("\nhint: ") == 1
    assert not workload.to.exists()


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
