"""Names of tunnels: reads what a user types, and knows what follows from it."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

PREFIX = "/_hbone/"
DEFAULT_PORTS = {"https": 443, "http": 80}
_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?\.?")
_PATH = re.compile(r"/[A-Za-z0-9_.~/-]*")


@dataclass(frozen=True, kw_only=True)
class URL:
    """A tunnel: which host's, and which one of it."""

    scheme: str  # https, or http for HTTP/2 without TLS
    host: str
    port: int
    path: str

    @property
    def authority(self) -> str:
        """Host and port as a request names them: without the scheme's own port."""
        host = _bracketed(self.host)
        return host if self.port == DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def audience(self) -> str:
        """What an ID token for this host is made for: no port, no path."""
        return f"https://{_bracketed(self.host)}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}{self.path}"


@dataclass(frozen=True, kw_only=True)
class Address:
    """A host and a port to dial."""

    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        """Whether what is sent there stays on this machine, as far as the name says."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host.lower() == "localhost"

    def __str__(self) -> str:
        return f"{_bracketed(self.host)}:{self.port}"


def parse_url(text: str, *, default_path: str = "") -> URL:
    """Read ``https://HOST/_hbone/22``, ``http://HOST:PORT/_hbone/22``, ``HOST:443/_hbone/22``, or ``HOST:22``.

    The last is port 22 of the tunnel server at ``https://HOST``. A URL without a path means ``default_path``.

    Raises:
        ValueError: none of these.
    """
    if "://" not in text and "/" not in text:
        address = parse_address(text)
        return URL(scheme="https", host=address.host, port=443, path=f"{PREFIX}{address.port}")
    split = _split(text if "://" in text else f"https://{text}")
    path = default_path if split.path in ("", "/") and default_path else split.path
    if not path.startswith(PREFIX) or path == PREFIX or not _PATH.fullmatch(path):
        raise ValueError(f"{text!r}: a tunnel's path is {PREFIX}PORT")
    host, port = split.hostname or "", split.port or DEFAULT_PORTS[split.scheme]
    return URL(scheme=split.scheme, host=_checked(host, text=text), port=port, path=path)


def parse_address(text: str) -> Address:
    """Read ``HOST:PORT`` or ``[IPv6]:PORT``.

    Raises:
        ValueError: not of that form.
    """
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f"{text!r}: an IPv6 address stands in brackets")
    if not (colon and port.isascii() and port.isdecimal() and len(port) <= 5 and 0 < int(port) < 65536):
        raise ValueError(f"{text!r} is not HOST:PORT")
    return Address(host=_checked(host, text=text), port=int(port))


def parse_listen(text: str) -> Address:
    """Read ``PORT``, on 127.0.0.1, or ``ADDRESS:PORT``; port 0 is any that is free.

    Raises:
        ValueError: not of that form, or no IP address.
    """
    host, _, port = text.rpartition(":")
    any_port = port.isdecimal() and not int(port)
    address = parse_address(f"{host or '127.0.0.1'}:{1 if any_port else port}")
    host = "127.0.0.1" if address.host == "localhost" else address.host
    try:
        ipaddress.ip_address(host)
    except ValueError as error:
        raise ValueError(f"{text!r}: {host!r} is no IP address of this machine") from error
    return Address(host=host, port=0 if any_port else address.port)


def _split(text: str) -> SplitResult:
    split = urlsplit(text)
    try:
        port = split.port
    except ValueError as error:
        raise ValueError(f"{text!r}: its port is no number from 1 to 65535") from error
    if split.scheme not in DEFAULT_PORTS:
        raise ValueError(f"{text!r}: the scheme is https, or http for HTTP/2 without TLS")
    if split.username is not None or split.query or split.fragment or port == 0:
        raise ValueError(f"{text!r}: a tunnel's URL is SCHEME://HOST[:PORT]{PREFIX}PORT and nothing more")
    return split


def _checked(host: str, *, text: str) -> str:
    if ":" in host:
        try:
            return str(ipaddress.IPv6Address(host))
        except ValueError as error:
            raise ValueError(f"{text!r}: {host!r} is no IPv6 address") from error
    if not _HOST.fullmatch(host):
        raise ValueError(f"{text!r}: {host!r} is no host name")
    return host.lower()


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
