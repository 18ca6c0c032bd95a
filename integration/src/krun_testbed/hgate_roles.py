"""Roles that are made of others, as Kubernetes' controller makes them, and users who have one in a namespace only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
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


@dataclass(frozen=True, kw_only=True)
class Right:
    """One verb of one resource, by one rule of a role."""

    kind: str
    role: str
    rule: int
    group: str
    resource: str
    verb: str

    @property
    def spelled(self) -> str:
        """The resource with its group."""
        return f"{self.resource}.{self.group}" if self.group else self.resource

    def __str__(self) -> str:
        return f"{self.verb}-{self.spelled}-{self.kind.lower()}-{self.rule}"


def rights(item: Mapping[str, Any]) -> list[Right]:
    """All that a role gives."""
    return [
        Right(
            kind=item["kind"],
            role=item["metadata"]["name"],
            rule=number,
            group=group,
            resource=resource,
            verb=verb,
        )
        for number, rule in enumerate(item["rules"])
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    ]


def lacking(item: Mapping[str, Any], right: Right) -> Mapping[str, Any]:
    """A role without one of its rights; other objects as they are."""
    if (item["kind"], item["metadata"]["name"]) != (right.kind, right.role):
        return item
    rules = list(item["rules"])
    rule = rules[right.rule]
    others = {**rule, "resources": [each for each in rule["resources"] if each != right.resource]}
    narrowed = {**rule, "resources": [right.resource], "verbs": [each for each in rule["verbs"] if each != right.verb]}
    rules[right.rule : right.rule + 1] = [each for each in (others, narrowed) if each["resources"] and each["verbs"]]
    return {**item, "rules": rules}


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
