"""A cluster's entry in a kubeconfig: its server, by what that is verified, and the way there."""

from __future__ import annotations

from urllib.parse import SplitResult, urlsplit

from krun_discover import kube_file
from krun_discover.kube_target import SYSTEM_ROOTS, believed
from krun_discover.kubeconfig_entry import Entry
from krun_discover.record import Record
from krun_discover.web import Tls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

EXTENSION = "client.authentication.k8s.io/exec"  # what a cluster's entry holds for credential plugins
ROOTS_LIMIT = 1024 * 1024  # bytes


class Server(Record, hidden=("proxy", "told")):
    """See Target; ``told`` is what a credential plugin may be told of it."""

    url: str
    tls: Tls
    roots: str
    proxy: str
    told: dict[str, Any]


def server(entry: Entry) -> Server:
    """Read the ``cluster`` of an entry. Raises Malformed, Misconfigured."""
    url = entry.line("server").rstrip("/")
    _check(entry, "server", url, schemes=("https", "http"))
    proxy = entry.line("proxy-url")
    if proxy:
        _check(entry, "proxy-url", proxy, schemes=("http", "https", "socks5"))
        if not proxy.startswith("http:"):
            raise entry.refused("proxy-url", "only proxies of http:// are supported", hint="name an http:// proxy")
    roots, source = _roots(entry)
    insecure = entry.flag("insecure-skip-tls-verify")
    if insecure and roots:
        raise entry.refused(
            "insecure-skip-tls-verify", "contradicts the certificate-authority beside it", hint="remove one of them"
        )
    name = entry.line("tls-server-name")
    tls, believed_by = believed(url, roots=roots, source=source, server_name=name, insecure=insecure)
    return Server(url=url, tls=tls, roots=believed_by, proxy=proxy, told=_told(entry, url=url, roots=roots))


def _roots(entry: Entry) -> tuple[str, str]:
    """The roots as PEM, and where they come from. The data win over a file, as for kubectl."""
    name, pem = "certificate-authority-data", entry.data("certificate-authority-data")
    if not pem and (path := entry.path("certificate-authority")):
        name = "certificate-authority"
        pem = kube_file.read(path, what=entry.at(name), limit=ROOTS_LIMIT)
    if not pem:
        return "", SYSTEM_ROOTS
    from krun_discover import certificate  # late: with datetime

    try:
        return certificate.roots(pem.decode("latin-1")), entry.at(name)
    except ValueError as error:
        raise entry.wrong(name, str(error), hint="it is PEM: -----BEGIN CERTIFICATE-----") from None


def _told(entry: Entry, *, url: str, roots: str) -> dict[str, Any]:
    """The Cluster of an ExecCredential's spec, without what is empty."""
    from base64 import b64encode

    found: dict[str, Any] = {
        "server": url,
        "tls-server-name": entry.line("tls-server-name"),
        "insecure-skip-tls-verify": entry.flag("insecure-skip-tls-verify"),
        "certificate-authority-data": b64encode(roots.encode()).decode(),
        "proxy-url": entry.line("proxy-url"),
        "config": next(
            (one.values.get("extension") for one in entry.entries("extensions") if one.text("name") == EXTENSION), None
        ),
    }
    return {name: value for name, value in found.items() if value}


def _check(entry: Entry, name: str, url: str, *, schemes: tuple[str, ...]) -> SplitResult:
    """Take a URL apart. Raises Malformed; the URL is not shown, as it may hold a password."""
    hint = f"write {schemes[0]}://HOST:PORT"
    if not url:
        raise entry.wrong(name, "is missing", hint=hint)
    try:
        parts = urlsplit(url)
        is_whole = parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_whole = False
    if not is_whole or not url.isascii() or " " in url or parts.query or parts.fragment:
        raise entry.wrong(name, "is no URL of a server", hint=hint)
    if name == "server" and parts.username is not None:
        raise entry.wrong(name, "holds a user's name", hint="credentials belong into the user's entry")
    return parts
