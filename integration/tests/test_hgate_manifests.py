"""What an admin applies for hgate is what a real API server takes: its rights, its Pods' limits, its users' rights."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from string import Template
from typing import Any

import click
import pytest
import yaml

from hgate import cli, policy_text
from hgate.policy import DEFAULT
from krun_testbed import hgate_control, hgate_deployment, hgate_roles, processes, tables
from krun_testbed.hgate_control import SYSTEM, Installed
from krun_testbed.kubernetes import Kubernetes
from krun_testbed.kubernetes_client import ApiError, Client

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(180)]

FOLDER = tables.ROOT / "manifests"
GATE = "system:serviceaccount:istio-system:hgate"


@pytest.fixture
def hgate(kubernetes: Kubernetes, tmp_path: Path) -> Iterator[Installed]:
    """The manifests applied, and all that follows from them taken away again."""
    installed = hgate_control.install(kubernetes, folder=tmp_path)
    installed.sweep()
    yield installed
    installed.sweep()


def the(kind: str, name: str = "hgate") -> dict[str, Any]:
    """One of the objects."""
    (found,) = [
        item for item in hgate_deployment.manifests() if (item["kind"], item["metadata"]["name"]) == (kind, name)
    ]
    return found


def container() -> dict[str, Any]:
    (found,) = the("Deployment")["spec"]["template"]["spec"]["containers"]
    assert isinstance(found, dict)
    return found


def test_every_file_of_the_kustomization_is_there_and_every_object_has_its_namespace() -> None:
    cluster_wide = {
        "ClusterRole",
        "ClusterRoleBinding",
        "ValidatingAdmissionPolicy",
        "ValidatingAdmissionPolicyBinding",
    }
    for item in hgate_deployment.manifests():
        namespace = item["metadata"].get("namespace")
        assert namespace == (None if item["kind"] in cluster_wide else SYSTEM), item["kind"]


def test_the_api_server_takes_all_of_it_strictly(hgate: Installed) -> None:
    admin = hgate.kubernetes.admin
    for item in hgate_deployment.manifests():
        # A field that no version knows is a limit that does not hold.
        path = admin.path_of(item)
        query = "fieldManager=test&force=true&fieldValidation=Strict&dryRun=All"
        admin.request("PATCH", f"{path}?{query}", item, kind="application/apply-patch+yaml")


def test_its_pods_are_restricted_ones(kubernetes: Kubernetes) -> None:
    namespace = kubernetes.namespace()
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    kubernetes.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": labels}})
    spec = {**the("Deployment")["spec"]["template"]["spec"], "serviceAccountName": "default"}
    metadata = {"name": "hgate", "namespace": namespace}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
    kubernetes.apply(pod)
    loose = {**spec, "containers": [{**container(), "securityContext": {}}]}
    with pytest.raises(ApiError, match="PodSecurity"):
        kubernetes.apply({**pod, "metadata": {**metadata, "name": "loose"}, "spec": loose})
    assert container()["securityContext"]["readOnlyRootFilesystem"] is True


def test_its_command_line_is_understood_and_its_ports_are_those_that_it_opens() -> None:
    made = container()
    assert made["command"] == ["hgate"]
    context = cli.command.make_context("hgate", list(made["args"]), resilient_parsing=True)
    ports = {port["name"]: port["containerPort"] for port in made["ports"]}
    assert context.params["kubernetes"] is True
    assert context.params["listen"] == f"0.0.0.0:{ports['sni']}"
    assert context.params["status"] == f"0.0.0.0:{ports['status']}"
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert made[probe]["httpGet"]["port"] == "status"
        assert made[probe]["httpGet"]["path"] in ("/healthz/live", "/healthz/ready")
    assert isinstance(context.command, click.Group)


def test_both_services_and_the_disruption_budget_choose_its_pods() -> None:
    labels = the("Deployment")["spec"]["template"]["metadata"]["labels"]
    for name in ("hgate", "internal-hgate"):
        service = the("Service", name)["spec"]
        assert service["selector"].items() <= labels.items()
        assert service["type"] == "LoadBalancer"
        assert [(port["port"], port["targetPort"]) for port in service["ports"]] == [(15442, "sni")]
    assert the("PodDisruptionBudget")["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert the("Deployment")["spec"]["replicas"] == 2


# What the gate may not, whatever it was given for its work: (verb, group, resource, namespace, name).
FORBIDDEN = [
    ("get", "", "secrets", "demo", ""),
    ("list", "", "secrets", "", ""),
    ("get", "", "configmaps", "demo", "other"),
    ("list", "", "configmaps", "", ""),
    ("list", "", "configmaps", SYSTEM, ""),
    ("update", "", "configmaps", SYSTEM, "hgate-policy"),
    ("delete", "", "configmaps", SYSTEM, "mesh-env"),
    ("update", "", "configmaps", "demo", "hgate"),
    ("list", "", "pods", "", ""),
    ("get", "", "nodes", "", "one"),
    ("create", "", "serviceaccounts", "demo", ""),
    ("create", "rbac.authorization.k8s.io", "roles", "demo", ""),
    ("update", "coordination.k8s.io", "leases", SYSTEM, "istio-leader"),
    ("create", "networking.istio.io", "envoyfilters", "demo", ""),
    ("create", "networking.istio.io", "gateways", "demo", ""),
    ("create", "security.istio.io", "authorizationpolicies", "demo", ""),
    ("patch", "", "services", "demo", "web"),
    ("deletecollection", "", "services", "demo", ""),
]


@pytest.mark.parametrize(("verb", "group", "resource", "namespace", "name"), FORBIDDEN)
def test_the_gate_may_nothing_else(
    hgate: Installed, verb: str, group: str, resource: str, namespace: str, name: str
) -> None:
    asked = {"verb": verb, "group": group, "resource": resource, "namespace": namespace, "name": name}
    assert not hgate.kubernetes.may(GATE, **{key: value for key, value in asked.items() if value})


def test_the_policy_as_it_comes_is_the_one_that_holds_without_it() -> None:
    text = yaml.safe_load((FOLDER / "policy.yaml").read_text(encoding="utf-8"))["data"]["policy.yaml"]

    assert policy_text.read(text) == DEFAULT


def test_the_policys_examples_are_read_when_they_are_taken_out_of_their_comments() -> None:
    text = yaml.safe_load((FOLDER / "policy.yaml").read_text(encoding="utf-8"))["data"]["policy.yaml"]
    # Those that begin a line of YAML; the others are words.
    plain = re.sub(r"^#(?=[ ]{2}|cloudRun)", "", text, flags=re.M)
    found = policy_text.read(plain)
    assert found.of("demo").account == "demo-caller@my-project.iam.gserviceaccount.com"
    assert found.of("demo").hashes == {"icq63pqnqq"}
    assert found.cloud_run[0].regions == ("us-central1",)


def template(namespace: str) -> str:
    """What a user applies by hand, as the README of the seed has it."""
    text = (FOLDER / "sni-service-template.yaml").read_text(encoding="utf-8")
    names = {"K_SERVICE": "web-icq63pqnqq-uc", "WORKLOAD_NAME": "web", "WORKLOAD_SERVICE_ACCOUNT": "default"}
    return Template(text).substitute(WORKLOAD_NAMESPACE=namespace, SNI_GATE_IP="10.1.2.3", **names)


def user_of(kubernetes: Kubernetes, namespace: str, role: str) -> Client:
    return hgate_roles.namespace_admin(kubernetes, f"{role}-{namespace}@example.com", namespace=namespace, role=role)


@pytest.mark.parametrize("role", ["admin", "edit"])
def test_a_user_of_one_namespace_registers_in_it_and_in_no_other(
    hgate: Installed, kubernetes: Kubernetes, namespace: str, role: str
) -> None:
    hgate_roles.aggregate(kubernetes)
    user, other = user_of(kubernetes, namespace, role), kubernetes.namespace()
    user.apply(template(namespace), namespace=namespace)
    with pytest.raises(ApiError, match="forbidden"):
        user.apply(template(other), namespace=other)
    with pytest.raises(ApiError, match="forbidden"):
        user.get(f"/api/v1/namespaces/{SYSTEM}/configmaps/hgate-policy")
    with pytest.raises(ApiError, match="forbidden"):
        user.create(f"/api/v1/namespaces/{SYSTEM}/configmaps", {"metadata": {"name": "hgate-policy"}})


def test_the_templates_service_has_a_route_and_nothing_else_is_written(hgate: Installed, namespace: str) -> None:
    policy = "namespaces: {'*': {hashes: [icq63pqnqq]}}"
    hgate.kubernetes.config_map("hgate-policy", {"policy.yaml": policy}, namespace=SYSTEM)
    hgate.balanced(internal="10.1.2.3")
    with hgate.replica() as gate:
        hgate.kubernetes.apply(template(namespace), namespace=namespace)

        processes.wait_until(lambda: gate.metric("hgate_routes") == {"": 1.0}, what="there is a route")
        assert hgate.written(namespace) == set()
