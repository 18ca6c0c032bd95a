"""What a cluster's admin applies for hgate, read as `kubectl apply -k` reads it, and what its Pods are made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from krun_testbed import hgate_roles, istiod, tables
from krun_testbed.hgate_roles import Right
from krun_testbed.kubernetes import Kubernetes

FOLDER = tables.ROOT / "manifests"
NAME = "hgate"
# Of load balancers: the cloud's controller gives them addresses, and says so in their status.
PUBLIC, INTERNAL = "hgate", "internal-hgate"


@dataclass(frozen=True, kw_only=True)
class Container:
    """How the Deployment starts hgate."""

    args: tuple[str, ...]
    env: Mapping[str, str]
    user: int
    account: str


def manifests() -> list[dict[str, Any]]:
    """All objects, in the order of kustomization.yaml."""
    listed = yaml.safe_load((FOLDER / "kustomization.yaml").read_text(encoding="utf-8"))
    unknown = set(listed) - {"apiVersion", "kind", "resources"}
    if unknown:
        raise AssertionError(f"kustomization.yaml: {unknown}: only resources are read here")
    texts = [(FOLDER / name).read_text(encoding="utf-8") for name in listed["resources"]]
    return [item for text in texts for item in yaml.safe_load_all(text) if item]


def policy() -> str:
    """What the admin allows unless he has other wishes: the file beside, which is not applied again with the rest."""
    (item,) = yaml.safe_load_all((FOLDER / "policy.yaml").read_text(encoding="utf-8"))
    return str(item["data"]["policy.yaml"])


def rights() -> list[Right]:
    """All that hgate may, by the roles that are bound to its account."""
    items = manifests()
    bound = {
        item["roleRef"]["name"]
        for item in items
        if item["kind"] in ("RoleBinding", "ClusterRoleBinding")
        and any(subject["kind"] == "ServiceAccount" and subject["name"] == NAME for subject in item["subjects"])
    }
    roles = [item for item in items if item["kind"] in ("Role", "ClusterRole") and item["metadata"]["name"] in bound]
    return [right for role in roles for right in hgate_roles.rights(role)]


def install(kubernetes: Kubernetes, *, public: str, internal: str, without: Right | None = None) -> None:
    """The admin's one step, and what controllers do after it: addresses of load balancers, roles made of others.

    ``without``: what hgate may not.
    """
    applied = [hgate_roles.lacking(item, without) if without else item for item in manifests()]
    kubernetes.apply(*applied, namespace=istiod.NAMESPACE)
    hgate_roles.aggregate(kubernetes)
    for name, address in ((PUBLIC, public), (INTERNAL, internal)):
        balanced(kubernetes, name, address)


def balanced(kubernetes: Kubernetes, name: str, *addresses: str) -> None:
    """Say that a load balancer has these addresses."""
    path = f"/api/v1/namespaces/{istiod.NAMESPACE}/services/{name}/status"
    status = {"loadBalancer": {"ingress": [{"ip": address, "ipMode": "VIP"} for address in addresses if address]}}
    kubernetes.admin.request("PATCH", path, {"status": status}, kind="application/merge-patch+json")


def container(*, pod: str, address: str) -> Container:
    """Of one of its Pods."""
    (deployment,) = [item for item in manifests() if item["kind"] == "Deployment"]
    spec = deployment["spec"]["template"]["spec"]
    (made,) = spec["containers"]
    fields = {
        "metadata.name": pod,
        "metadata.namespace": istiod.NAMESPACE,
        "status.podIP": address,
        "spec.serviceAccountName": spec["serviceAccountName"],
        "spec.nodeName": "node",
    }
    env = {
        entry["name"]: entry["value"] if "value" in entry else fields[entry["valueFrom"]["fieldRef"]["fieldPath"]]
        for entry in made.get("env") or []
    }
    context = {**spec.get("securityContext", {}), **made.get("securityContext", {})}
    return Container(
        args=tuple(made.get("args") or ()),
        env=env,
        user=int(context["runAsUser"]),
        account=spec["serviceAccountName"],
    )
