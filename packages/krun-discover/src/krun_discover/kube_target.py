"""A cluster's API server: where it is, whom it must prove to be, and as whom we ask. No requests."""

from __future__ import annotations

from urllib.parse import urlsplit

from krun_discover.kube_credentials import Anonymous, Credentials
from krun_discover.record import Record
from krun_discover.web import Tls

# Names of Google: their certificates are of a public authority, and the cluster's own has never signed them.
PUBLIC = (".gke.goog", "connectgateway.googleapis.com")
SYSTEM_ROOTS = "the system's root certificates"


class Absent(Record):
    """There is no such configuration here, which is no failure; ``reason`` is for a person."""

    reason: str


class Target(Record, hidden=("proxy",)):
    """One API server. ``server``: a URL without a slash at its end; ``source`` and ``roots``: texts for a person.

    ``project``, ``location`` and ``cluster`` are Google's names for it, each empty where it is not known.
    """

    server: str
    source: str
    tls: Tls = Tls()
    roots: str = SYSTEM_ROOTS  # where the certificates that it is verified by come from
    proxy: str = ""  # a URL, perhaps with a password; empty: what the environment says
    credentials: Credentials = Anonymous()
    namespace: str = ""
    project: str = ""
    location: str = ""
    cluster: str = ""


def is_public(server: str) -> bool:
    """Tell whether the server's certificate is of a public authority, whatever a configuration says of its own."""
    return (urlsplit(server).hostname or "").endswith(PUBLIC)


def believed(server: str, *, roots: str, source: str, server_name: str = "", insecure: bool = False) -> tuple[Tls, str]:
    """By what the server is verified: ``roots`` is PEM that ``source`` names. The second is Target's ``roots``."""
    if is_public(server):
        # Also where verifying is switched off: these take tokens that are good for all of Google's cloud.
        return Tls(server_name=server_name), SYSTEM_ROOTS
    if insecure:
        return Tls(server_name=server_name, insecure=True), "nothing (insecure-skip-tls-verify)"
    return Tls(roots=roots, server_name=server_name), source if roots else SYSTEM_ROOTS
