"""URLs of services as users declare them: reads them strictly, and knows what they mean on Cloud Run. Resolves nothing.

A gate that follows any URL carries its own identity to wherever a namespace wants it. So a URL is a scheme and a host,
and what a host means is read out of its form: ``NAME-PROJECTNUMBER.REGION.run.app`` or ``NAME-HASH-RC.a.run.app``.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from functools import lru_cache

from hgate.refusal import Refused, shown

SCHEME = "https://"
MAX_HOST = 253
DOMAIN = ".run.app"
HINT = "write https://HOST as `gcloud run services describe` shows it, and nothing after it"
_LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_HOST = re.compile(rf"{_LABEL}(\.{_LABEL})+")
_NAME = r"[a-z]([a-z0-9-]*[a-z0-9])?"
_TAG = rf"((?P<tag>{_NAME}?)---)?"
# The service's own name has no dash at its end; the last number or hash is the platform's.
_NUMBERED = re.compile(
    rf"{_TAG}(?P<name>{_NAME})-(?P<project>[0-9]{{4,20}})\.(?P<region>[a-z]+(-[a-z]+)+[0-9]+)\.run\.app"
)
_HASHED = re.compile(rf"{_TAG}(?P<name>{_NAME})-(?P<hash>[a-z0-9]{{8,16}})-(?P<code>[a-z]{{2}})\.a\.run\.app")
_HASHED_LABEL = re.compile(rf"{_NAME}-[a-z0-9]{{8,16}}-[a-z]{{2}}")


@dataclass(frozen=True, kw_only=True, slots=True)
class ServiceUrl:
    """``https://HOST``. On Cloud Run ``name`` is the service's; elsewhere only the host is known."""

    host: str
    name: str = ""
    project: str = ""  # its number; empty in the older form of URLs
    region: str = ""
    hash: str = ""  # of project and region, in the older form
    code: str = ""
    tag: str = ""

    @property
    def is_cloud_run(self) -> bool:
        return bool(self.name)

    @property
    def service_host(self) -> str:
        """The host without a revision's tag: all tags are of one service."""
        return self.host.removeprefix(f"{self.tag}---") if self.tag else self.host

    @property
    def audience(self) -> str:
        """What Cloud Run wants an ID token to be made for; a tag has none of its own."""
        return f"{SCHEME}{self.service_host}"

    @property
    def key(self) -> str:
        """Which service it is of, in characters that a config map's keys may have."""
        return self.service_host

    def __str__(self) -> str:
        return f"{SCHEME}{self.host}"


@lru_cache(maxsize=4096)
def parse(text: str) -> ServiceUrl:
    """Read a declared URL.

    Raises:
        Refused: it is not https://HOST, or the host is no public name.
    """
    if "@" in text:
        # First: what stands there may be a password, and every other text here becomes an event.
        raise Refused("the URL has credentials in it", hint=HINT)
    if not text.isascii() or not text.isprintable():
        raise Refused(
            f"the URL {shown(text)} has characters that are not ASCII",
            hint="write an international name in its ASCII form, xn--…, if it is really meant",
        )
    scheme, separator, rest = text.partition("://")
    if not separator or scheme.lower() != "https":
        raise Refused(f"the URL {shown(text)} is not https", hint=HINT)
    host, _, path = rest.partition("/")
    if path or "?" in rest or "#" in rest:
        raise Refused(f"the URL {shown(text)} has a path, a query or a fragment", hint=HINT)
    return read_host(host.lower(), text=text)


def read_host(host: str, *, text: str) -> ServiceUrl:
    """What a host name in small letters means. Raises Refused: it is no public name."""
    if _is_address(host):
        raise Refused(f"the URL {shown(text)} names an address", hint=HINT)
    if ":" in host:
        raise Refused(f"the URL {shown(text)} has a port", hint=HINT)
    if host.endswith("."):
        raise Refused(f"the host of the URL {shown(text)} ends in a dot", hint=HINT)
    if len(host) > MAX_HOST or not _HOST.fullmatch(host):
        raise Refused(f"the URL {shown(text)} has no full host name", hint=HINT)
    for form in (_NUMBERED, _HASHED):
        if found := form.fullmatch(host):
            fields = {key: value or "" for key, value in found.groupdict().items()}
            return ServiceUrl(host=host, **fields)
    if host.endswith(DOMAIN):
        raise Refused(
            f"the URL {shown(text)} is not of the form of a Cloud Run service",
            hint=f"https://NAME-PROJECTNUMBER.REGION{DOMAIN} or https://NAME-HASH-RC.a{DOMAIN}",
        )
    return ServiceUrl(host=host)


def of_label(label: str) -> ServiceUrl | None:
    """The service whose older URL begins with this label, as the seed's template names services; else ``None``."""
    return read_host(f"{label}.a.run.app", text=label) if _HASHED_LABEL.fullmatch(label) and len(label) < 64 else None


def _is_address(host: str) -> bool:
    """Tell whether resolvers take it for an IP address: also 127.1, 0x7f.1 and [::1]."""
    if host.startswith("["):
        return True
    try:
        ipaddress.ip_address(host)
    except ValueError:
        # The last part of a name that is no address has a letter that is no hexadecimal prefix.
        return re.fullmatch(r"([0-9a-fx]+\.)*(0x[0-9a-f]*|[0-9]+)\.?", host) is not None
    return True
