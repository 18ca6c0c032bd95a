"""``hgate register`` and ``hgate unregister``, by who has a kubeconfig and rights in one namespace."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from hgate.kube import open_kube
from krun_testbed import components, hgate_rounds, processes
from krun_testbed.hgate_rounds import GATE, OWN, URL, Rounds
from krun_testbed.kubernetes import Kubernetes

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(180)]

EUROPE = URL.replace("us-central1", "europe-west1")


@pytest.fixture
def rounds(kubernetes: Kubernetes, namespace: str) -> Rounds:
    hgate_rounds.definitions(kubernetes)
    return Rounds(kube=open_kube(kubeconfig=str(kubernetes.kubeconfig)), namespaces=(namespace,))


def hgate(*arguments: str, kubeconfig: Path | str = "/nowhere") -> subprocess.CompletedProcess[str]:
    env = processes.environment(KUBECONFIG=str(kubeconfig))
    return processes.run([components.command("hgate"), *arguments], env=env)


def ours(rounds: Rounds) -> list[str]:
    return sorted(f"{kind} {name}" for kind, where, name in rounds.seen() if where == rounds.namespaces[0])


def service(kubernetes: Kubernetes, namespace: str) -> dict[str, Any]:
    found: dict[str, Any] = kubernetes.admin.get(f"/api/v1/namespaces/{namespace}/services/web")
    return found


ONE = ["DestinationRule web", "PeerAuthentication web", "Sidecar web", "WorkloadEntry web"]


def test_a_dry_run_prints_what_would_be_written_and_asks_nobody() -> None:
    done = hgate("register", "--dry-run", "--gate-address", GATE, "web.demo", URL)
    assert (done.returncode, done.stderr) == (0, "")
    kinds = [(item["kind"], item["metadata"]["namespace"]) for item in yaml.safe_load_all(done.stdout)]
    assert sorted(kinds) == sorted(
        (kind, "demo") for kind in ("Service", "DestinationRule", "PeerAuthentication", "Sidecar", "WorkloadEntry")
    )


@pytest.mark.parametrize("urls", [(URL,), (f"{URL}=25", f"{EUROPE}=75")])
def test_what_a_dry_run_prints_is_what_the_gate_would_write(
    kubernetes: Kubernetes, rounds: Rounds, urls: tuple[str, ...]
) -> None:
    (namespace,) = rounds.namespaces
    done = hgate("register", "--dry-run", "--gate-address", GATE, "-n", namespace, "web", *urls)
    kubernetes.apply(done.stdout)
    before = ours(rounds)
    assert len(before) >= 4
    made = rounds.run()
    assert (made.deleted, made.kept, made.failed) == (0, [], [])
    assert ours(rounds) == before
    assert not rounds.run().is_changed


def test_a_service_is_made_registered_changed_and_taken_back(kubernetes: Kubernetes, rounds: Rounds) -> None:
    (namespace,) = rounds.namespaces
    flags = ("--gate-address", GATE, "--kubeconfig", str(kubernetes.kubeconfig))
    done = hgate("register", *flags, f"web.{namespace}", URL)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert f"created Service {namespace}/web" in done.stderr
    assert ours(rounds) == ONE
    hgate("register", *flags, "--timeout", "20", f"web.{namespace}", URL)
    rule = rounds.seen()["DestinationRule", namespace, "web"]
    assert rule["spec"]["trafficPolicy"]["connectionPool"]["tcp"]["maxConnectionDuration"] == "10s"
    # To the gate there is nothing left to do, but to note who was first.
    rounds.run()
    assert not rounds.run().is_changed
    done = hgate("unregister", *flags[2:], f"web.{namespace}")
    assert done.returncode == 0, done.stderr
    assert ours(rounds) == []
    done = hgate("unregister", *flags[2:], f"web.{namespace}")
    assert done.returncode == 78
    assert "declares a Cloud Run service" in done.stderr


def test_a_service_that_was_there_keeps_all_but_our_annotations(kubernetes: Kubernetes, rounds: Rounds) -> None:
    (namespace,) = rounds.namespaces
    spec = {"ports": [{"name": "http", "port": 9000}], "selector": {"app": "mine"}}
    metadata = {"name": "web", "annotations": {"note": "mine"}}
    kubernetes.apply({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}, namespace=namespace)
    flags = ("--kubeconfig", str(kubernetes.kubeconfig))
    assert hgate("register", *flags, "--gate-address", GATE, f"web.{namespace}", URL).returncode == 0
    assert rounds.seen()["WorkloadEntry", namespace, "web"]["spec"]["labels"]["app"] == "mine"
    assert hgate("unregister", *flags, f"web.{namespace}").returncode == 0
    left = service(kubernetes, namespace)
    assert (left["metadata"]["annotations"], left["spec"]["ports"][0]["port"]) == ({"note": "mine"}, 9000)
    assert ours(rounds) == []


def test_the_gates_address_comes_from_mesh_env_and_without_it_the_gate_does_the_rest(
    kubernetes: Kubernetes, rounds: Rounds
) -> None:
    (namespace,) = rounds.namespaces
    flags = ("--kubeconfig", str(kubernetes.kubeconfig))
    done = hgate("register", *flags, f"web.{namespace}", URL)
    assert done.returncode == 0
    assert "the gate itself writes what follows" in done.stderr
    assert ours(rounds) == []
    kubernetes.config_map("mesh-env", {"IMCON_ADDR": "10.5.6.7"}, namespace="istio-system")
    try:
        assert hgate("register", *flags, f"web.{namespace}", URL).returncode == 0
    finally:
        kubernetes.admin.delete("/api/v1/namespaces/istio-system/configmaps/mesh-env")
    assert rounds.seen()["WorkloadEntry", namespace, "web"]["spec"]["address"] == "10.5.6.7"


def test_who_may_write_services_only_leaves_the_rest_to_the_gate(
    kubernetes: Kubernetes, rounds: Rounds, tmp_path: Path
) -> None:
    (namespace,) = rounds.namespaces
    may = {"services": ["get", "create", "patch"]}
    user = user_of(kubernetes, namespace, may, folder=tmp_path)
    done = hgate("register", "--gate-address", GATE, f"web.{namespace}", URL, kubeconfig=user)
    assert done.returncode == 0, done.stderr
    assert f"left WorkloadEntry {namespace}/web to the gate: not permitted" in done.stderr
    rounds.run()
    assert ours(rounds) == ONE


def test_who_may_not_is_told_which_right_is_missing(kubernetes: Kubernetes, rounds: Rounds, tmp_path: Path) -> None:
    (namespace,) = rounds.namespaces
    user = user_of(kubernetes, namespace, {"services": ["get"]}, folder=tmp_path)
    done = hgate("register", "--gate-address", GATE, f"web.{namespace}", URL, kubeconfig=user)
    assert done.returncode == 77
    assert "create services" in done.stderr
    assert "hint: " in done.stderr


def user_of(kubernetes: Kubernetes, namespace: str, may: dict[str, list[str]], *, folder: Path) -> Path:
    """A user with just these rights in a namespace; the kubeconfig."""
    role = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": {"name": "some"},
        "rules": [{"apiGroups": [""], "resources": [name], "verbs": verbs} for name, verbs in may.items()],
    }
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": "some"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "some"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": f"user-{namespace}"}],
    }
    kubernetes.apply(role, binding, namespace=namespace)
    token = kubernetes.outsider(f"user-{namespace}")
    return kubernetes.config_for(folder / "kubeconfig", token=token, namespace=namespace)


@pytest.mark.parametrize(
    ("arguments", "status", "word"),
    [
        (("web.demo",), 2, "Missing argument"),
        (("web.demo.svc", URL), 2, "is not SERVICE"),
        (("-n", "other", "web.demo", URL), 2, "another namespace"),
        (("--gate-address", "gate", "web.demo", URL), 2, "no IP address"),
        (("--gate-address", GATE, "--dry-run", "web.demo", f"{URL}/path"), 78, "has a path"),
        (("--gate-address", GATE, "--dry-run", "web.demo", "https://ann:secret@evil.example"), 78, "credentials"),
        (("--gate-address", GATE, "--dry-run", "web.demo", f"{URL}=x"), 78, "is no number"),
        (("--dry-run", "web.demo", URL), 78, "the gate's address is not known"),
        (("web.demo", URL), 78, "kubeconfig"),
        (("--dry-run", "--timeout", "0", "web.demo", URL), 2, "--timeout"),
    ],
)
def test_what_cannot_be_is_one_line_and_a_status(arguments: tuple[str, ...], status: int, word: str) -> None:
    done = hgate("register", *arguments)
    assert (done.returncode, done.stdout) == (status, "")
    assert word in done.stderr
    assert "hgate: error: " in done.stderr
    assert "secret" not in done.stderr
    assert "Traceback" not in done.stderr


def test_hosts_outside_of_cloud_run_are_the_admins_to_allow_and_not_ours(tmp_path: Path) -> None:
    done = hgate("register", "--dry-run", "--gate-address", GATE, "web.demo", "https://api.example.com")
    assert done.returncode == 0
    assert OWN not in done.stdout
