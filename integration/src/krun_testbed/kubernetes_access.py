"""Roles take effect a moment after they were written: the server reads them back from its store. Wait for it."""

from __future__ import annotations

import functools
import secrets
from typing import Any

from krun_testbed.kubernetes_client import Client
from krun_testbed.processes import wait_until

GROUP = "rbac.authorization.k8s.io"
RBAC = f"/apis/{GROUP}/v1"
REVIEWS = "/apis/authorization.k8s.io/v1/subjectaccessreviews"


def is_role(item: Any) -> bool:
    """Tell whether an object decides who may do what."""
    return str(item["apiVersion"]).startswith(f"{GROUP}/")


def settle(admin: Client) -> None:
    """Wait until what was written to roles and bindings before is in effect.

    Each of the four kinds comes in the order in which it was written: once a last one of each is seen, so are the
    earlier ones.
    """
    name = f"settled-{secrets.token_hex(6)}"
    written = []
    for base, kind in ((f"{RBAC}/namespaces/default", "Role"), (RBAC, "ClusterRole")):
        rule = {"apiGroups": ["settled"], "resources": [kind.lower()], "verbs": ["get"]}
        roles, bindings = f"{base}/{kind.lower()}s", f"{base}/{kind.lower()}bindings"
        admin.create(roles, {"metadata": {"name": name}, "rules": [rule]})
        to = {"apiGroup": GROUP, "kind": kind, "name": name}
        subjects = [{"apiGroup": GROUP, "kind": "User", "name": name}]
        admin.create(bindings, {"metadata": {"name": name}, "roleRef": to, "subjects": subjects})
        written += [f"{roles}/{name}", f"{bindings}/{name}"]
    for resource in ("role", "clusterrole"):
        wait_until(
            functools.partial(
                may, admin, user=name, group="settled", resource=resource, verb="get", namespace="default"
            ),
            what="roles are in effect",
        )
    for path in written:
        admin.delete(path)


def may(admin: Client, *, user: str, **attributes: str) -> bool:
    """Tell whether a user may: ``verb``, ``resource``, ``group``, ``subresource``, ``name``, ``namespace``."""
    review = {"spec": {"user": user, "resourceAttributes": attributes}}
    return bool(admin.create(REVIEWS, review)["status"]["allowed"])
