"""Which server name leads to which URL: decides, never dials.

Istio's sidecars name a service ``outbound_.8080_._.b.demo.svc.cluster.local``: port, subset, host
(istio.io, pilot/pkg/model: BuildDNSSrvSubsetKey). Others name it by its plain DNS name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from hbone.urls import PREFIX, URL, parse_url
from hgate.contract import PORTS

DOMAIN = "svc.cluster.local"
DEFAULT_PATH = f"{PREFIX}{PORTS['ENVOY_MTLS']}"
_LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_OUTBOUND = re.compile(r"outbound_\.(?P<port>[0-9]{1,5})_\.(?P<subset>[A-Za-z0-9-]*)_\.(?P<host>.+)")
_HOST = re.compile(rf"(?P<service>{_LABEL})\.(?P<namespace>{_LABEL})")


@dataclass(frozen=True, kw_only=True)
class Destination:
    """A service of the mesh, as a server name has it; port 0 is any."""

    service: str
    namespace: str
    port: int = 0
    subset: str = ""


@dataclass(frozen=True, kw_only=True)
class Routes:
    """URLs by service, and by service and port; the latter win."""

    urls: Mapping[tuple[str, str, int], URL]

    def find(self, destination: Destination) -> URL | None:
        """The URL of a destination, ``None`` when there is no route."""
        service, namespace = destination.service, destination.namespace
        return self.urls.get((service, namespace, destination.port)) or self.urls.get((service, namespace, 0))


def read_sni(sni: str) -> Destination | None:
    """The destination that a server name means; ``None`` when it is no service's name."""
    text = sni.lower().removesuffix(".")
    outbound = _OUTBOUND.fullmatch(text)
    host = _HOST.fullmatch((outbound["host"] if outbound else text).removesuffix(f".{DOMAIN}"))
    if host is None or not text.endswith(f".{DOMAIN}"):
        return None
    port = int(outbound["port"]) if outbound else 0
    if port > 65535 or (outbound and not port):
        return None
    subset = outbound["subset"] if outbound else ""
    return Destination(service=host["service"], namespace=host["namespace"], port=port, subset=subset)


def read_routes(texts: Iterable[str]) -> Routes:
    """Read ``NAME=URL``; NAME is ``b.demo``, ``b.demo.svc`` or the whole name, with ``:PORT`` for one port only.

    Raises:
        ValueError: not of that form, or a name that has two URLs.
    """
    urls: dict[tuple[str, str, int], URL] = {}
    for text in texts:
        name, equals, target = text.partition("=")
        if not equals:
            raise ValueError(f"route {text!r} is not NAME=URL")
        key = _read_name(name)
        url = parse_url(target, default_path=DEFAULT_PATH)
        if urls.setdefault(key, url) != url:
            raise ValueError(f"route {name!r} has two URLs: {urls[key]} and {url}")
    return Routes(urls=urls)


def _read_name(name: str) -> tuple[str, str, int]:
    host, colon, digits = name.partition(":")
    text = host.lower().removesuffix(".").removesuffix(".cluster.local").removesuffix(".svc")
    match = _HOST.fullmatch(text)
    port = int(digits) if digits.isascii() and digits.isdecimal() and len(digits) <= 5 else 0
    if match is None or (colon and not 0 < port < 65536):
        raise ValueError(f"route name {name!r} is not SERVICE.NAMESPACE, with or without .{DOMAIN} and :PORT")
    return match["service"], match["namespace"], port
