"""HOST:PORT as users write it."""

from __future__ import annotations

import re

from krun_discover.errors import Misconfigured
from krun_discover.record import Record

HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?\.?")


class Address(Record):
    """A host (name, IPv4 or IPv6 without brackets) and a TCP port."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def parse(text: str, *, what: str, default_port: int) -> Address:
    """Read ``HOST``, ``HOST:PORT``, ``[IPV6]`` or ``[IPV6]:PORT``; ``what`` names it in the error (Misconfigured)."""
    host, port = _split(text)
    if not _is_host(host):
        raise Misconfigured(
            f"{what}: {text!r} is not HOST:PORT",
            hint="write a host name, an IPv4 address, or an IPv6 address in brackets, and a port from 1 to 65535",
        )
    if port is None:
        return Address(host=host.strip("[]"), port=default_port)
    # At most five digits: int() refuses thousands of them with an error of its own.
    if not (port.isascii() and port.isdecimal() and len(port) <= 5 and 1 <= int(port) <= 65535):
        raise Misconfigured(f"{what}: {port!r} is not a port", hint="a port is a number from 1 to 65535")
    return Address(host=host.strip("[]"), port=int(port))


def _split(text: str) -> tuple[str, str | None]:
    if text.startswith("["):
        host, bracket, rest = text.partition("]")
        if rest and not rest.startswith(":"):
            return "", None
        return host + bracket, rest[1:] if rest else None
    if text.count(":") > 1:
        return "", None  # an IPv6 address without brackets: where its port begins, nobody can tell
    host, colon, port = text.partition(":")
    return host, port if colon else None


def _is_host(host: str) -> bool:
    if not host.startswith("["):
        return HOST.fullmatch(host) is not None
    import ipaddress  # late: hardly anybody writes IPv6 here

    try:
        return host.endswith("]") and bool(ipaddress.IPv6Address(host[1:-1]))
    except ValueError:
        return False
