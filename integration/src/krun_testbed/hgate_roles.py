"""Roles that are made of others, as Kubernetes' controller makes them, and users who have one in a namespace only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from krun_testbed import kubernetes_access
from krun_testbed.kubernetes import Kubernetes
from krun_testbed.kubernetes_access import GROUP, RBAC
from krun_testbed.kubernetes_client import Client

# Those that are parts of others come first: admin is made of edit's parts too, by their labels.
AGGREGATED = ("view", "edit", "admin")


def aggregate(kubernetes: Kubernetes) -> None:
    """Give each role its rules: all those of the roles whose labels it asks for; in effect when it returns."""
    admin = kubernetes.admin
    for name in AGGREGATED:
        path = f"{RBAC}/clusterroles/{name}"
        selectors = admin.get(path)["aggregationRule"]["clusterRoleSelectors"]
        listed = admin.get(f"{RBAC}/clusterroles")["items"]
        rules: list[Any] = []
        for role in sorted(listed, key=lambda item: str(item["metadata"]["name"])):
            if role["metadata"]["name"] != name and any(_fits(role, selector) for selector in selectors):
                rules += [rule for rule in role.get("rules") or [] if rule not in rules]
        admin.request("PATCH", path, {"rules": rules}, kind="application/merge-patch+json")
    kubernetes_access.settle(admin)


def lacking(item: Mapping[str, Any], what: Mapping[str, str]) -> Mapping[str, Any]:
    """A role without one ``verb`` of one ``resource`` of a ``group``; other objects as they are."""
    if item["kind"] not in ("Role", "ClusterRole"):
        return item
    rules: list[Any] = []
    for rule in item.get("rules") or []:
        rules += _split(rule, what)
    return {**item, "rules": rules}


def _split(rule: Mapping[str, Any], what: Mapping[str, str]) -> list[Mapping[str, Any]]:
    """The rule, less that verb of that resource."""
    if what["group"] not in rule.get("apiGroups", []) or what["resource"] not in rule.get("resources", []):
        return [rule]
    others = [resource for resource in rule["resources"] if resource != what["resource"]]
    verbs = [verb for verb in rule["verbs"] if verb != what["verb"]]
    kept: list[Mapping[str, Any]] = [{**rule, "resources": others}] if others else []
    return kept + ([{**rule, "resources": [what["resource"]], "verbs": verbs}] if verbs else [])


def namespace_admin(kubernetes: Kubernetes, user: str, *, namespace: str, role: str = "admin") -> Client:
    """Somebody who has one of these roles in a namespace, and nothing else anywhere."""
    kubernetes.apply(
        {
            "apiVersion": f"{GROUP}/v1",
            "kind": "RoleBinding",
            "metadata": {"name": f"{role}-{user.partition('@')[0]}", "namespace": namespace},
            "roleRef": {"apiGroup": GROUP, "kind": "ClusterRole", "name": role},
            "subjects": [{"apiGroup": GROUP, "kind": "User", "name": user}],
        }
    )
    return kubernetes.caller(kubernetes.outsider(user))


def _fits(role: Any, selector: Any) -> bool:
    """Tell whether a role's labels are those of a selector; Kubernetes' own have no expressions."""
    labels = role["metadata"].get("labels") or {}
    asked = selector.get("matchLabels") or {}
    return bool(asked) and asked.items() <= labels.items()
