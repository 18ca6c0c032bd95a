"""A real Kubernetes API to test against: etcd and kube-apiserver, its callers, and what a test puts into it.

``python -m krun_testbed.kubernetes`` runs it alone, and says where its kubeconfig is.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any
from urllib.parse import urlsplit

import click

from krun_testbed import kubernetes_access, kubernetes_server
from krun_testbed.certificates import Pair, write
from krun_testbed.components import Missing
from krun_testbed.kubernetes_client import Client
from krun_testbed.kubernetes_kubeconfig import by_certificate, by_token, by_token_file, kubeconfig
from krun_testbed.kubernetes_server import Server


@dataclass(frozen=True, kw_only=True)
class Kubernetes:
    """The API that runs. ``admin`` may do everything; ``url`` and ``root`` are what others need to call it."""

    server: Server
    directory: Path

    @property
    def url(self) -> str:
        return self.server.url

    @property
    def root(self) -> bytes:
        """The certificate authority of the server, PEM."""
        return self.server.root

    def where(self) -> tuple[str, int]:
        """Host and port."""
        url = urlsplit(self.url)
        return str(url.hostname), int(url.port or 443)

    @property
    def admin(self) -> Client:
        return self.server.admin

    @property
    def kubeconfig(self) -> Path:
        """The administrator's, mode 0600."""
        return self.directory / "admin.kubeconfig"

    def caller(self, token: str) -> Client:
        """Who holds a token, as a client."""
        return Client(url=self.url, root=self.root, token=token)

    def apply(self, *manifests: str | Path | Mapping[str, Any], namespace: str = "default") -> list[Any]:
        """Apply YAML (text, files) or objects; roles among them are in effect when it returns."""
        applied = self.admin.apply(*manifests, namespace=namespace)
        if any(kubernetes_access.is_role(item) for item in applied):
            kubernetes_access.settle(self.admin)
        return applied

    def namespace(self, name: str = "") -> str:
        """A namespace with its service account ``default``; without a name, one that nobody else has."""
        name = name or f"test-{secrets.token_hex(4)}"
        self.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        self.service_account("default", namespace=name)
        return name

    def service_account(self, name: str, *, namespace: str, annotations: Mapping[str, str] | None = None) -> str:
        """A service account; the answer is its user name."""
        metadata = {"name": name, "namespace": namespace, "annotations": dict(annotations or {})}
        self.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata})
        return f"system:serviceaccount:{namespace}:{name}"

    def config_map(self, name: str, data: Mapping[str, str], *, namespace: str) -> None:
        """A config map with exactly this data."""
        metadata = {"name": name, "namespace": namespace}
        self.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": dict(data)})

    def secret(self, name: str, data: Mapping[str, str], *, namespace: str, kind: str = "Opaque") -> None:
        """A secret of texts."""
        metadata = {"name": name, "namespace": namespace}
        self.apply({"apiVersion": "v1", "kind": "Secret", "type": kind, "metadata": metadata, "stringData": dict(data)})

    def token(self, account: str, *, namespace: str, audiences: tuple[str, ...] = (), life: int = 3600) -> str:
        """A token of a service account by TokenRequest; without audiences it is one for this API.

        The server refuses a ``life`` of less than 600 seconds.
        """
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token"
        asked = {"spec": {"audiences": list(audiences), "expirationSeconds": life}}
        return str(self.admin.create(path, asked)["status"]["token"])

    def review(self, token: str, *, audiences: tuple[str, ...] = ()) -> dict[str, Any]:
        """What the server says of a token: the status of a TokenReview."""
        asked = {"spec": {"token": token, "audiences": list(audiences)}}
        status: dict[str, Any] = self.admin.create("/apis/authentication.k8s.io/v1/tokenreviews", asked)["status"]
        return status

    def outsider(self, user: str) -> str:
        """A new token of a user that this cluster does not make itself, such as a Google service account's email.

        It can be taken back from ``server.reviewer.tokens``; once used, the server itself remembers it for ten seconds.
        """
        token = f"outside.{secrets.token_urlsafe(24)}"
        self.server.reviewer.tokens[token] = user
        return token

    def certificate(self, user: str, *, groups: tuple[str, ...] = ()) -> Pair:
        """A client certificate of a user."""
        return self.server.clients.certificate(user=user, groups=groups)

    def may(self, user: str, **attributes: str) -> bool:
        """Tell whether a user may: ``verb``, ``resource``, ``subresource``, ``name``, ``namespace``."""
        return kubernetes_access.may(self.admin, user=user, **attributes)

    def config_for(
        self,
        path: Path,
        *,
        token: str = "",
        token_file: Path | None = None,
        certificate: Pair | None = None,
        namespace: str = "",
        name: str = "test",
    ) -> Path:
        """Write a kubeconfig for a user by one of the three, mode 0600."""
        user = by_certificate(certificate) if certificate else by_token_file(token_file) if token_file else None
        text = kubeconfig(server=self.url, root=self.root, user=user or by_token(token), namespace=namespace, name=name)
        write(path=path, content=text.encode())
        return path


@contextlib.contextmanager
def running(*, address: str = "", port: int = 0, issuer: str = kubernetes_server.ISSUER) -> Iterator[Kubernetes]:
    """Kubernetes until the block ends. Missing when this machine has no etcd, or cannot build kube-apiserver."""
    with tempfile.TemporaryDirectory(prefix="krun-kubernetes-") as folder:
        directory = Path(folder)
        with kubernetes_server.start(directory=directory, address=address, port=port, issuer=issuer) as server:
            made = Kubernetes(server=server, directory=directory)
            admin = made.certificate("admin", groups=("system:masters",))
            made.config_for(made.kubeconfig, certificate=admin)
            yield made


@click.command()
@click.option("--address", default="", help="Loopback address; one that nobody else uses unless it is given.")
@click.option("--port", default=0, help="Port; any free one unless it is given.")
def main(address: str, port: int) -> None:
    """Serve the Kubernetes API until SIGTERM; one line on stderr says when and where."""
    ended = threading.Event()

    def end(number: int, frame: FrameType | None) -> None:
        ended.set()

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    try:
        with running(address=address, port=port) as made:
            sys.stderr.write(f"krun_testbed.kubernetes: ready url={made.url} kubeconfig={made.kubeconfig}{os.linesep}")
            sys.stderr.flush()
            ended.wait()
    except Missing as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    main()
