"""A mesh in a real Kubernetes API behind Google's APIs, and the places from which krun-discover looks for it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Template

from krun_testbed import components, processes, tables
from krun_testbed.certificates import Authority, write
from krun_testbed.google_api import GoogleApi
from krun_testbed.google_api_metadata import metadata_server
from krun_testbed.kubernetes import Kubernetes
from krun_testbed.kubernetes_client import ApiError
from krun_testbed.metadata import Facts, MetadataServer

EMAIL = Facts().email  # as whom the metadata server says we run
SYSTEM = "istio-system"
MESH_ENV = {"MCON_ADDR": "203.0.113.20", "IMCON_ADDR": "10.128.0.20"}
MESH = {"mesh_id": "proj-123456789012"}  # the label of a cluster that is in a mesh


@dataclass(frozen=True, kw_only=True)
class World:
    """What is there. ``way``: the variables by which Google's names lead to the stand-ins."""

    kubernetes: Kubernetes
    google: GoogleApi
    way: Mapping[str, str]
    folder: Path
    address: str

    def mesh_env(self, data: Mapping[str, str], *, namespace: str = SYSTEM) -> None:
        """Write the config map."""
        self.kubernetes.config_map("mesh-env", data, namespace=namespace)

    def grant(self, user: str, *, namespace: str, account: str = "default") -> None:
        """Let a user do what manifests/ let a workload do."""
        text = (tables.ROOT / "manifests" / "discover-rbac.yaml").read_text(encoding="utf-8")
        variables = {"PRINCIPAL": user, "WORKLOAD_NAMESPACE": namespace, "WORKLOAD_SERVICE_ACCOUNT": account}
        self.kubernetes.apply(Template(text).substitute(variables))

    @contextlib.contextmanager
    def metadata(self, *, platform: str = "cloud-run", facts: Facts | None = None) -> Iterator[MetadataServer]:
        """A metadata server whose tokens Google's APIs know."""
        with metadata_server(self.google.accounts, address=self.address, platform=platform, facts=facts) as server:
            yield server

    def environment(self, **env: str) -> dict[str, str]:
        """A process's whole environment: no kubeconfig, no metadata server, a home without anything."""
        home = self.folder / "home"
        home.mkdir(exist_ok=True)
        return processes.environment(**{**self.way, "HOME": str(home), "KRUN_TOKEN_CACHE": "off", **env})

    def kubeconfig(self, context: str, **user: object) -> Path:
        """A kubeconfig with a context of that name; ``user`` as Kubernetes.config_for takes it."""
        path = self.folder / "kubeconfig"
        return self.kubernetes.config_for(path, name=context, **user)  # type: ignore[arg-type]

    def file(self, name: str, content: object) -> Path:
        """A file of JSON, mode 0600."""
        path = self.folder / name
        write(path=path, content=json.dumps(content).encode())
        return path

    def program(self, name: str, script: str) -> str:
        """A shell script as a program; the folder that PATH must begin with is returned."""
        folder = self.folder / "bin"
        folder.mkdir(exist_ok=True)
        (folder / name).write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        (folder / name).chmod(0o755)
        return f"{folder}:{Path(components.command('krun-discover')).parent}:/usr/sbin:/usr/bin:/sbin:/bin"


@contextlib.contextmanager
def world(*, kubernetes: Kubernetes, google: GoogleApi, address: str, folder: Path) -> Iterator[World]:
    """All of it; the mesh's own settings are gone at the end."""
    with contextlib.suppress(ApiError):
        kubernetes.namespace(SYSTEM)
    with google.proxied(kubernetes, address=address) as way:
        try:
            yield World(kubernetes=kubernetes, google=google, way=way, folder=folder, address=address)
        finally:
            with contextlib.suppress(ApiError):
                kubernetes.admin.delete(f"/api/v1/namespaces/{SYSTEM}/configmaps/mesh-env")


def roots(authority: Authority) -> str:
    """A mesh's roots as mesh-env holds them."""
    return authority.root.decode().strip()
