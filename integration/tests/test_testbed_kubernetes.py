"""The real Kubernetes API of the tests, and the roles of manifests/ on it."""

from __future__ import annotations

import base64
import json
import os
import stat
import sys
from pathlib import Path
from string import Template

import pytest
import yaml

from krun_testbed import processes, tables
from krun_testbed.kubernetes import Kubernetes
from krun_testbed.kubernetes_client import ApiError, Client

pytestmark = pytest.mark.kubernetes

MANIFESTS = tables.ROOT / "manifests"


def manifest(name: str, **variables: str) -> str:
    """A manifest as envsubst writes it."""
    return Template((MANIFESTS / name).read_text(encoding="utf-8")).substitute(variables)


def claims(token: str) -> dict[str, object]:
    middle = token.split(".")[1]
    found: dict[str, object] = json.loads(base64.urlsafe_b64decode(middle + "=" * (-len(middle) % 4)))
    return found


def refusal(client: Client, method: str, path: str, body: object = None) -> tuple[int, str]:
    with pytest.raises(ApiError) as caught:
        client.request(method, path, body)
    return caught.value.status, caught.value.reason


def test_objects_are_written_read_changed_and_gone(kubernetes: Kubernetes, namespace: str) -> None:
    path = f"/api/v1/namespaces/{namespace}/configmaps/mesh-env"
    kubernetes.config_map("mesh-env", {"A": "1", "B": "2"}, namespace=namespace)
    kubernetes.config_map("mesh-env", {"A": "3"}, namespace=namespace)
    assert kubernetes.admin.get(path)["data"] == {"A": "3"}
    kubernetes.admin.delete(path)
    assert refusal(kubernetes.admin, "GET", path) == (404, "NotFound")
    kubernetes.secret("password", {"word": "x"}, namespace=namespace)
    kept = kubernetes.admin.get(f"/api/v1/namespaces/{namespace}/secrets/password")["data"]
    assert base64.b64decode(kept["word"]) == b"x"


def test_manifests_of_many_documents_are_applied_whatever_their_order(kubernetes: Kubernetes, namespace: str) -> None:
    other = f"{namespace}-other"
    text = f"""
apiVersion: v1
kind: ConfigMap
metadata: {{name: a, namespace: {other}}}
---
# A document of nothing.
---
apiVersion: v1
kind: Namespace
metadata: {{name: {other}}}
---
apiVersion: v1
kind: List
items:
  - {{apiVersion: v1, kind: ConfigMap, metadata: {{name: b}}}}
"""
    kubernetes.apply(text, namespace=namespace)
    assert kubernetes.admin.get(f"/api/v1/namespaces/{other}/configmaps/a")
    assert kubernetes.admin.get(f"/api/v1/namespaces/{namespace}/configmaps/b")


def test_a_kind_that_a_manifest_defines_is_known_afterwards(kubernetes: Kubernetes, namespace: str) -> None:
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    kubernetes.apply(
        {
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {"name": "things.krun.test"},
            "spec": {
                "group": "krun.test",
                "names": {"kind": "Thing", "plural": "things"},
                "scope": "Namespaced",
                "versions": [version],
            },
        }
    )
    kubernetes.apply({"apiVersion": "krun.test/v1", "kind": "Thing", "metadata": {"name": "x"}}, namespace=namespace)
    assert kubernetes.admin.get(f"/apis/krun.test/v1/namespaces/{namespace}/things/x")["kind"] == "Thing"


def test_a_token_of_a_service_account_is_for_its_audience_only(kubernetes: Kubernetes, namespace: str) -> None:
    user = kubernetes.service_account("workload", namespace=namespace)
    token = kubernetes.token("workload", namespace=namespace, audiences=("istio-ca",), life=1200)
    said = claims(token)
    assert (said["iss"], said["sub"], said["aud"]) == (kubernetes.server.issuer, user, ["istio-ca"])
    reviewed = kubernetes.review(token, audiences=("istio-ca",))
    assert (reviewed["user"]["username"], reviewed["audiences"]) == (user, ["istio-ca"])
    assert not kubernetes.review(token, audiences=("other",)).get("authenticated")
    # It is no key to the API itself; one without audiences is.
    assert refusal(kubernetes.caller(token), "GET", "/api/v1/nodes") == (401, "Unauthorized")
    own = kubernetes.token("workload", namespace=namespace)
    assert refusal(kubernetes.caller(own), "GET", "/api/v1/nodes") == (403, "Forbidden")


def test_nobody_gets_in_without_a_name(kubernetes: Kubernetes) -> None:
    anonymous = Client(url=kubernetes.url, root=kubernetes.root)
    assert refusal(anonymous, "GET", "/version") == (401, "Unauthorized")
    assert refusal(kubernetes.caller("x.y.z"), "GET", "/version") == (401, "Unauthorized")
    assert kubernetes.admin.get("/version")["gitVersion"] == "v1.37.2"


def test_an_outsiders_token_says_who_calls_unless_it_was_taken_back(kubernetes: Kubernetes) -> None:
    token = kubernetes.outsider("workload@project.iam.gserviceaccount.com")
    who = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
    answer = kubernetes.caller(token).create(who, {})
    assert answer["status"]["userInfo"]["username"] == "workload@project.iam.gserviceaccount.com"
    unused = kubernetes.outsider("workload@project.iam.gserviceaccount.com")
    del kubernetes.server.reviewer.tokens[unused]
    assert refusal(kubernetes.caller(unused), "POST", who, {}) == (401, "Unauthorized")


def test_kubeconfig_files_are_their_owners_and_hold_one_user_each(kubernetes: Kubernetes, tmp_path: Path) -> None:
    word = tmp_path / "token"
    ways = {
        "token": kubernetes.config_for(tmp_path / "a", token="abc", namespace="demo"),
        "tokenFile": kubernetes.config_for(tmp_path / "b", token_file=word),
        "client-key-data": kubernetes.config_for(tmp_path / "c", certificate=kubernetes.certificate("x")),
    }
    for key, path in ways.items():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
        assert key in config["users"][0]["user"]
        assert config["clusters"][0]["cluster"]["server"] == kubernetes.url
    assert stat.S_IMODE(kubernetes.kubeconfig.stat().st_mode) == 0o600


def test_a_workload_may_discover_and_nothing_else(kubernetes: Kubernetes, namespace: str) -> None:
    principal = f"{namespace}@project.iam.gserviceaccount.com"
    kubernetes.namespace("istio-system")
    for account in ("workload", "other"):
        kubernetes.service_account(account, namespace=namespace)
    kubernetes.config_map("mesh-env", {"MESH_TENANT": "-"}, namespace="istio-system")
    variables = {"PRINCIPAL": principal, "WORKLOAD_NAMESPACE": namespace, "WORKLOAD_SERVICE_ACCOUNT": "workload"}
    kubernetes.apply(manifest("discover-rbac.yaml", **variables))
    caller = kubernetes.caller(kubernetes.outsider(principal))
    assert caller.get("/api/v1/namespaces/istio-system/configmaps/mesh-env")["data"] == {"MESH_TENANT": "-"}
    # Allowed, and not there.
    own = f"/api/v1/namespaces/{namespace}"
    assert refusal(caller, "GET", f"{own}/configmaps/mesh-env") == (404, "NotFound")
    asked = {"spec": {"audiences": ["istio-ca"]}}
    token = caller.create(f"{own}/serviceaccounts/workload/token", asked)["status"]["token"]
    assert claims(token)["sub"] == f"system:serviceaccount:{namespace}:workload"
    forbidden = [
        ("POST", f"{own}/serviceaccounts/other/token"),
        ("POST", "/api/v1/namespaces/default/serviceaccounts/workload/token"),
        ("GET", f"{own}/configmaps/other"),
        ("GET", f"{own}/configmaps"),
        ("GET", f"{own}/serviceaccounts/workload"),
        ("GET", f"{own}/secrets/password"),
        ("GET", "/api/v1/namespaces/istio-system/configmaps/istio"),
        ("GET", "/api/v1/namespaces/istio-system/secrets/istio-ca-secret"),
        ("DELETE", "/api/v1/namespaces/istio-system/configmaps/mesh-env"),
    ]
    for method, path in forbidden:
        body = asked if method == "POST" else None
        assert refusal(caller, method, path, body) == (403, "Forbidden"), (method, path)


def test_a_workload_reads_the_one_secret_that_it_was_given(kubernetes: Kubernetes, namespace: str) -> None:
    principal = f"{namespace}@project.iam.gserviceaccount.com"
    for name in ("password", "other"):
        kubernetes.secret(name, {"word": name}, namespace=namespace)
    variables = {"PRINCIPAL": principal, "WORKLOAD_NAMESPACE": namespace, "WORKLOAD_SECRET": "password"}
    kubernetes.apply(manifest("discover-secret-rbac.yaml", **variables))
    caller = kubernetes.caller(kubernetes.outsider(principal))
    assert caller.get(f"/api/v1/namespaces/{namespace}/secrets/password")
    assert refusal(caller, "GET", f"/api/v1/namespaces/{namespace}/secrets/other") == (403, "Forbidden")
    assert refusal(caller, "GET", f"/api/v1/namespaces/{namespace}/secrets") == (403, "Forbidden")


@pytest.mark.parametrize("name", sorted(path.name for path in MANIFESTS.glob("*.yaml")))
def test_a_manifest_explains_each_of_its_variables(name: str) -> None:
    text = (MANIFESTS / name).read_text(encoding="utf-8")
    head = text[: text.index("apiVersion")]
    for variable in Template(text.removeprefix(head)).get_identifiers():
        assert f"\n# {variable} " in head
        assert f"${variable}" in head


def test_it_runs_alone_and_ends_with_all_that_it_started() -> None:
    argv = [sys.executable, "-m", "krun_testbed.kubernetes"]
    with processes.start(argv, env={**os.environ}) as running:
        found = running.wait_for(r"ready url=(\S+) kubeconfig=(\S+)$", timeout=60)
        config = Path(found[2])
        assert yaml.safe_load(config.read_text(encoding="utf-8"))["clusters"][0]["cluster"]["server"] == found[1]
        below = processes.children(running.pid)
        assert len(below) == 2
        assert running.terminate() == 0
        assert not config.exists()
        assert [pid for pid in below if Path(f"/proc/{pid}").exists()] == []


def test_without_etcd_the_tier_is_left_out_with_the_package_to_install(tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "krun_testbed.tiers", "--tier", "kubernetes"]
    for ci, status in (("", 0), ("true", 1)):
        done = processes.run(argv, env={**os.environ, "PATH": str(tmp_path), "CI": ci}, stdin=None)
        assert "kubernetes  left out: etcd: not found: install the package etcd-server" in done.stdout
        assert done.returncode == status
