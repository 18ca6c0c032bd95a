"""Kubeconfig files: one cluster, one user, one context."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import yaml

from krun_testbed.certificates import Pair


def by_token(token: str) -> dict[str, Any]:
    return {"token": token}


def by_token_file(path: object) -> dict[str, Any]:
    return {"tokenFile": str(path)}


def by_certificate(pair: Pair) -> dict[str, Any]:
    return {"client-certificate-data": _base64(pair.chain), "client-key-data": _base64(pair.key)}


def by_command(command: str, *arguments: str, version: str = "v1") -> dict[str, Any]:
    """A user whose token a command prints, such as gke-gcloud-auth-plugin."""
    called = {"apiVersion": f"client.authentication.k8s.io/{version}", "command": command, "args": list(arguments)}
    return {"exec": called | {"interactiveMode": "Never", "provideClusterInfo": False}}


def kubeconfig(
    *,
    server: str,
    root: bytes,
    user: Mapping[str, Any],
    name: str = "test",
    namespace: str = "",
    cluster: Mapping[str, Any] | None = None,
) -> str:
    """The file's text. ``root`` empty: the system's; ``cluster``: further fields, such as tls-server-name."""
    trust = {"certificate-authority-data": _base64(root)} if root else {}
    context = {"cluster": name, "user": name} | ({"namespace": namespace} if namespace else {})
    whole = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": {"server": server, **trust, **(cluster or {})}}],
        "users": [{"name": name, "user": dict(user)}],
        "contexts": [{"name": name, "context": context}],
        "current-context": name,
    }
    return yaml.safe_dump(whole, sort_keys=False)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
