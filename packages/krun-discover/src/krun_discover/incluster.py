"""The API server of the cluster that this process runs in, by what the kubelet puts into each pod."""

from __future__ import annotations

import os
from collections.abc import Mapping

from krun_discover import kube_credentials, kube_file
from krun_discover.errors import Malformed, Misconfigured
from krun_discover.kube_target import Absent, Target, believed

FOLDER = "/var/run/secrets/kubernetes.io/serviceaccount"
LIMIT = 1024 * 1024  # bytes


def load(environ: Mapping[str, str], *, folder: str = FOLDER) -> Target | Absent:
    """Look for it. Raises Misconfigured, Malformed when it is there and cannot be used."""
    host, port = environ.get("KUBERNETES_SERVICE_HOST", ""), environ.get("KUBERNETES_SERVICE_PORT", "") or "443"
    if not host:
        return Absent(reason="KUBERNETES_SERVICE_HOST is not set")
    token, authority = f"{folder}/token", f"{folder}/ca.crt"
    if not os.path.exists(token):
        return Absent(reason=f"{token} is not there (automountServiceAccountToken: false)")
    address = f"[{host}]" if ":" in host else host
    is_port = port.isascii() and port.isdecimal() and len(port) <= 5 and 1 <= int(port) <= 65535
    if not (is_port and address.isascii() and address.isprintable()) or any(sign in address for sign in " /?#@"):
        raise Misconfigured(
            f"KUBERNETES_SERVICE_HOST={host!r}, KUBERNETES_SERVICE_PORT={port!r}: not the address of a server",
            hint="the kubelet sets both in each pod",
        )
    server = f"https://{address}:{port}"
    tls, roots = believed(server, roots=_roots(authority), source=authority)
    return Target(
        server=server,
        source="in-cluster configuration",
        tls=tls,
        roots=roots,
        proxy="-",  # a pod's way to its own API server leads through none
        credentials=kube_credentials.File(
            path=token, title="the pod's token", remedy="is it a token of this cluster, still valid?"
        ),
        namespace=_namespace(f"{folder}/namespace"),
    )


def _roots(path: str) -> str:
    from krun_discover import certificate  # late: with datetime

    try:
        return certificate.roots(kube_file.read(path, what="in-cluster", limit=LIMIT).decode("latin-1"))
    except ValueError as error:
        raise Malformed(f"in-cluster: {path}: {error}", hint="the kubelet writes it: PEM") from None


def _namespace(path: str) -> str:
    """The pod's own; a file that is missing is no failure, as tokens of other projected volumes come without it."""
    try:
        text = kube_file.read(path, what="in-cluster", limit=LIMIT).decode("utf-8").strip()
    except (Misconfigured, UnicodeDecodeError):
        return ""
    return text if text.isprintable() else ""
