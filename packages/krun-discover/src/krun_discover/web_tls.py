"""HTTPS connections: contexts, names other than the URL's, proxies. Imported late, with ssl and http.client."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from http.client import HTTPSConnection
from urllib.parse import SplitResult, unquote, urlsplit

from krun_discover.errors import Misconfigured
from krun_discover.web import Tls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def context(tls: Tls) -> ssl.SSLContext:
    """What to verify by. Raises Misconfigured for roots or a client's certificate that cannot be used."""
    try:
        made = ssl.create_default_context(cadata=tls.roots or None)
    except (ssl.SSLError, ValueError) as error:
        raise Misconfigured(f"root certificates cannot be read: {_reason(error)}", hint="they are PEM text") from error
    if tls.roots:
        # Python 3.13 is stricter than any client of Kubernetes: authorities of EKS and microk8s have no key identifier.
        made.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if tls.insecure:
        made.check_hostname = False
        made.verify_mode = ssl.CERT_NONE
    if tls.certificate:
        try:
            # A key with a passphrase would ask for it on the terminal.
            made.load_cert_chain(tls.certificate, tls.key or None, password="")
        except (OSError, ValueError) as error:
            raise Misconfigured(
                f"client certificate {tls.certificate} with key {tls.key or tls.certificate}: {_reason(error)}",
                hint="both are PEM files, the key belongs to the certificate and has no passphrase",
            ) from error
    return made


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or getattr(error, "reason", None) or str(error)


class _Connection(HTTPSConnection):
    """One that verifies another name than the one it dials, when it is told one."""

    def __init__(self, host: str, port: int, *, server_name: str, context: ssl.SSLContext, timeout: float) -> None:
        super().__init__(host, port, context=context, timeout=timeout)
        self._server_name = server_name
        self._tls = context

    def connect(self) -> None:
        if not self._server_name:
            super().connect()
            return
        super(HTTPSConnection, self).connect()
        self.sock: Any = self._tls.wrap_socket(self.sock, server_hostname=self._server_name)


def connection(
    *, host: str, port: int, seconds: float, context: ssl.SSLContext, server_name: str, proxy: str
) -> HTTPSConnection:
    """A connection that is not open yet; ``proxy`` is a URL or empty. Raises Misconfigured for a proxy's scheme."""
    if not proxy:
        return _Connection(host, port, server_name=server_name, context=context, timeout=seconds)
    url, proxy_port = _proxy(proxy)
    if url.scheme != "http" or not url.hostname:
        raise Misconfigured(f"proxy {url.scheme}://{url.hostname}: not supported", hint="an http:// proxy is")
    made = _Connection(url.hostname, proxy_port, server_name=server_name, context=context, timeout=seconds)
    headers = {}
    if url.username:
        from base64 import b64encode

        login = f"{unquote(url.username)}:{unquote(url.password or '')}"
        headers["Proxy-Authorization"] = "Basic " + b64encode(login.encode()).decode()
    made.set_tunnel(host, port, headers=headers)
    return made


def _proxy(text: str) -> tuple[SplitResult, int]:
    """The proxy's URL and port. Raises Misconfigured without its text, in which a password may stand."""
    try:
        url = urlsplit(text if "://" in text else f"http://{text}")
        if not text.isprintable() or " " in text:
            raise ValueError(text)
        return url, url.port or 80
    except ValueError:
        raise Misconfigured("the proxy is not a URL", hint="HTTPS_PROXY=http://HOST:PORT") from None


def proxy_of(host: str, *, environ: Mapping[str, str]) -> str:
    """The proxy that HTTPS_PROXY names for this host, empty when NO_PROXY takes it out."""
    from urllib.request import proxy_bypass_environment  # type: ignore[attr-defined] # typeshed leaves it out

    proxies = {"no": environ.get("no_proxy") or environ.get("NO_PROXY") or ""}
    if proxy_bypass_environment(host, proxies):
        return ""
    return environ.get("https_proxy") or environ.get("HTTPS_PROXY") or ""
