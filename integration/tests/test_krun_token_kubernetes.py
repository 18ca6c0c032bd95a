"""krun-token against a real Kubernetes API: whose tokens it mints, for whom, and what it says when it may not."""

from __future__ import annotations

import json
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from krun_discover.token_claims import claims
from krun_testbed import processes
from krun_testbed.certificates import write
from krun_testbed.google_api import GoogleApi
from krun_testbed.google_api_metadata import metadata_server
from krun_testbed.kubernetes import Kubernetes
from krun_testbed.kubernetes_kubeconfig import by_command, kubeconfig
from krun_testbed.metadata import Facts

pytestmark = pytest.mark.kubernetes

ROBOT = "robot@demo-project.iam.gserviceaccount.com"


@dataclass
class Machine:
    """A laptop with a kubeconfig; its user may mint tokens of the account ``web``, and nothing else."""

    kubernetes: Kubernetes
    namespace: str
    config: Path
    env: dict[str, str]

    def run(self, *arguments: str, **more: str) -> processes.subprocess.CompletedProcess[str]:
        return processes.run(["krun-token", "kubernetes", *arguments], env={**self.env, **more})

    def mint(self, *arguments: str, **more: str) -> str:
        done = self.run(*arguments, **more)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.count("\n") == 1
        return done.stdout.strip()

    def fails(self, status: int, *arguments: str, **more: str) -> str:
        done = self.run(*arguments, **more)
        assert (done.returncode, done.stdout) == (status, ""), done.stderr
        assert "Traceback" not in done.stderr
        return done.stderr


@pytest.fixture
def machine(kubernetes: Kubernetes, namespace: str, tmp_path: Path) -> Machine:
    caller = kubernetes.outsider(ROBOT)
    kubernetes.service_account("web", namespace=namespace)
    permit(kubernetes, namespace=namespace, account="web")
    config = kubernetes.config_for(tmp_path / "config", token=caller, namespace=namespace)
    env = processes.environment(
        HOME=str(tmp_path), KUBECONFIG=str(config), KRUN_TOKEN_CACHE="off", KRUN_LOG_LEVEL="debug"
    )
    return Machine(kubernetes=kubernetes, namespace=namespace, config=config, env=env)


def permit(kubernetes: Kubernetes, *, namespace: str, account: str) -> None:
    rule = {"apiGroups": [""], "resources": ["serviceaccounts/token"], "resourceNames": [account], "verbs": ["create"]}
    kind = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "metadata": {"name": f"mint-{account}", "namespace": namespace},
    }
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": f"mint-{account}"}
    subject = {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": ROBOT}
    kubernetes.apply(
        {**kind, "kind": "Role", "rules": [rule]},
        {**kind, "kind": "RoleBinding", "roleRef": role, "subjects": [subject]},
    )


def test_the_token_is_the_accounts_for_the_audiences_and_the_cluster_takes_it(machine: Machine) -> None:
    token = machine.mint("--service-account", "web", "--audience", "istio-ca", "--audience", "other")
    found = claims(token)
    assert found["sub"] == f"system:serviceaccount:{machine.namespace}:web"
    assert found["aud"] == ["istio-ca", "other"]
    status = machine.kubernetes.review(token, audiences=("istio-ca",))
    assert status["authenticated"]
    assert status["audiences"] == ["istio-ca"]


def test_the_environment_names_namespace_and_account_and_a_flag_wins(machine: Machine) -> None:
    names = {"WORKLOAD_NAMESPACE": machine.namespace, "WORKLOAD_SERVICE_ACCOUNT": "web"}
    assert str(claims(machine.mint("--audience", "a", **names))["sub"]).endswith(":web")
    text = machine.fails(77, "--audience", "a", "--namespace", "elsewhere", **names)
    assert "elsewhere" in text


def test_the_life_is_what_was_asked_for(machine: Machine) -> None:
    token = machine.mint("--service-account", "web", "--audience", "a", "--expiration", "1200")
    found = claims(token)
    assert isinstance(found["exp"], int)
    assert 1100 < found["exp"] - time.time() <= 1200


def test_who_may_not_is_told_the_commands_that_permit_it(machine: Machine) -> None:
    text = machine.fails(77, "--service-account", "default", "--audience", "a")
    assert "serviceaccounts/token" in text
    assert "kubectl create role" in text
    assert ROBOT in text


def test_an_account_that_is_not_there_is_told(machine: Machine) -> None:
    permit(machine.kubernetes, namespace=machine.namespace, account="nobody")
    text = machine.fails(78, "--service-account", "nobody", "--audience", "a")
    assert "kubectl create serviceaccount nobody" in text


def test_a_cluster_that_does_not_answer_is_69(machine: Machine, address: str) -> None:
    config = machine.config.parent / "other"
    text = kubeconfig(server=f"https://{address}:1", root=machine.kubernetes.root, user={"token": "canary-token"})
    write(path=config, content=text.encode())
    said = machine.fails(69, "--audience", "a", "--timeout", "3", KUBECONFIG=str(config))
    assert f"{address}:1" in said
    assert "canary" not in said
    assert "there is no context 'no-such'" in machine.fails(78, "--audience", "a", "--context", "no-such")


def test_a_file_is_kept_good_and_nothing_secret_is_said(machine: Machine, tmp_path: Path) -> None:
    file = tmp_path / "istio-token"
    argv = ["krun-token", "kubernetes", "--service-account", "web", "--audience", "istio-ca"]
    env = {**machine.env, "KRUN_LOG_FORMAT": "json"}
    with processes.start([*argv, "--to", str(file), "--watch"], env=env) as running:
        running.wait_for("token written")
        first = file.read_text()
        assert machine.kubernetes.review(first, audiences=("istio-ca",))["authenticated"]
        running.signal(signal.SIGHUP)
        running.wait_for(r"(?s)token written.*token written")
        second = file.read_text()
        assert second != first
        assert running.terminate() == 0
    lines = [json.loads(line) for line in running.stderr.splitlines()]
    assert {line["source"] for line in lines} == {f"service account {machine.namespace}/web"}
    caller = machine.config.read_text().partition("token: ")[2].split()[0]
    for secret in (first, second, caller):
        assert secret.rpartition(".")[2] not in running.said()


def test_a_kept_token_is_used_again_and_is_for_its_audience_only(machine: Machine, tmp_path: Path) -> None:
    cache = {"KRUN_TOKEN_CACHE": str(tmp_path / "tokens")}
    arguments = ["--service-account", "web", "--audience"]
    first = machine.mint(*arguments, "a", **cache)
    assert machine.mint(*arguments, "a", **cache) == first
    assert machine.mint(*arguments, "b", **cache) != first


def test_explain_tells_the_cluster_and_the_account_and_no_token(machine: Machine) -> None:
    done = machine.run("--service-account", "web", "--audience", "istio-ca", "--explain")
    assert done.returncode == 0
    assert f"sub: system:serviceaccount:{machine.namespace}:web" in done.stdout
    assert machine.kubernetes.url in done.stdout
    assert "eyJ" not in done.stdout


def test_a_kubeconfig_of_gke_is_used_with_the_metadata_servers_token(
    machine: Machine, google: GoogleApi, address: str
) -> None:
    google.add(machine.kubernetes, "big")
    config = machine.config.parent / "gke"
    user = by_command("gke-gcloud-auth-plugin", version="v1beta1")
    text = kubeconfig(
        server=machine.kubernetes.url, root=machine.kubernetes.root, user=user, namespace=machine.namespace
    )
    write(path=config, content=text.encode())
    with metadata_server(google.accounts, address=address, facts=Facts(email=ROBOT)) as server:
        where = {"GCE_METADATA_HOST": server.address, "NO_GCE_CHECK": "", "KUBECONFIG": str(config)}
        token = machine.mint("--service-account", "web", "--audience", "a", **where)
        assert len(server.requests) == 1
    assert claims(token)["sub"] == f"system:serviceaccount:{machine.namespace}:web"


def test_a_kubernetes_account_becomes_a_google_account(machine: Machine, google: GoogleApi) -> None:
    google.add(machine.kubernetes, "big")
    pool = "demo-project.svc.id.goog"
    place = {**google.environment, "WORKLOAD_SERVICE_ACCOUNT": "web"}
    federation = ["--federation", f"identitynamespace:{pool}:{machine.kubernetes.server.issuer}"]

    def mint(*arguments: str, **env: str) -> processes.subprocess.CompletedProcess[str]:
        return processes.run(["krun-token", *arguments, *federation], env={**machine.env, **place, **env})

    access = mint("access")
    assert (access.returncode, access.stderr) == (0, "")
    assert google.accounts.grants[access.stdout.strip()].principal == f"{pool}[{machine.namespace}/web]"
    without = mint("id", "--audience", "https://b.example")
    assert (without.returncode, without.stdout) == (78, "")
    assert "name a Google service account to impersonate" in without.stderr
    google.accounts.actors[ROBOT] = {f"{pool}[{machine.namespace}/web]"}
    identity = mint("id", "--audience", "https://b.example", CLOUDSDK_AUTH_IMPERSONATE_SERVICE_ACCOUNT=ROBOT)
    assert claims(identity.stdout)["email"] == ROBOT
    told = mint("access", "--explain")
    assert "/v1/token: 200" in told.stdout
    assert "serviceaccounts/web/token: 201" in told.stdout


def test_federation_by_what_is_no_audience_is_78_and_nobody_is_asked(machine: Machine) -> None:
    done = processes.run(["krun-token", "access", "--federation", "canary"], env=machine.env)
    assert (done.returncode, done.stdout) == (78, "")
    assert "identitynamespace:TRUST_DOMAIN:ISSUER" in done.stderr
