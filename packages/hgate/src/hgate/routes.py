"""Which server name leads to which URL: decides, never dials.

Istio's sidecars name a service ``outbound_.8080_._.b.demo.svc.cluster.local``: port, subset, host
(istio.io, pilot/pkg/model: BuildDNSSrvSubsetKey). Others name it by its plain DNS name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from sys import intern

from hbone.urls import PREFIX, URL, Address, parse_address, parse_url
from hgate.contract import PORTS

DOMAIN = "svc.cluster.local"
DEFAULT_PATH = f"{PREFIX}{PORTS['ENVOY_MTLS']}"
RAW = "tcp://"  # bytes as they are, to HOST:PORT
MAX_SNI = 400  # a host's name has 253 at most, and a subset is one label
_LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_OUTBOUND = re.compile(r"outbound_\.(?P<port>[0-9]{1,5})_\.(?P<subset>[A-Za-z0-9-]*)_\.(?P<host>.+)")
_HOST = re.compile(rf"(?P<service>{_LABEL})\.(?P<namespace>{_LABEL})")

Key = tuple[str, str, int, str]  # service, namespace, port (0: any), subset ("": any)


@dataclass(frozen=True, kw_only=True, slots=True)
class Destination:
    """A service of the mesh, as a server name has it; port 0 is any."""

    service: str
    namespace: str
    port: int = 0
    subset: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Identity:
    """Whose ID token a tunnel carries: for which audience, and of which account; ``""`` is the gate's own."""

    audience: str
    account: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Route:
    """Where a service is; port 0 and subset "" are any. Without an identity no token is sent."""

    service: str
    namespace: str
    url: str
    port: int = 0
    subset: str = ""
    identity: Identity | None = None

    @property
    def key(self) -> Key:
        return (self.service, self.namespace, self.port, self.subset)


Routes = tuple[Route, ...]


@dataclass(frozen=True, slots=True)
class Target:
    """What a route leads to: a tunnel's URL, or an address that takes the bytes as they are."""

    place: URL | Address
    identity: Identity | None = None

    @property
    def is_raw(self) -> bool:
        return isinstance(self.place, Address)

    def __str__(self) -> str:
        return str(self.place) if isinstance(self.place, URL) else f"{RAW}{self.place}"


class RouteTable:
    """Routes by service, namespace, port and subset. The most exact one wins: a subset before a port, before any."""

    def __init__(self, routes: Iterable[Route] = ()) -> None:
        self._targets: dict[Key, Target] = {}
        # Many services may be at one place, and thousands of routes are kept by each worker.
        self._places: dict[tuple[str, Identity | None], Target] = {}
        self.set(routes)

    def __len__(self) -> int:
        return len(self._targets)

    def set(self, routes: Iterable[Route]) -> None:
        """Add these, or replace what has their keys.

        Raises:
            ValueError: a URL is none.
        """
        for route in routes:
            service, namespace, port, subset = route.key
            self._targets[(service, intern(namespace), port, intern(subset))] = self._target(route.url, route.identity)

    def remove(self, keys: Iterable[Key]) -> None:
        """Forget these; those that are not there are no fault."""
        for key in keys:
            self._targets.pop(key, None)
        if len(self._places) > 2 * len(self._targets) + 64:
            self._places = {(str(target), target.identity): target for target in self._targets.values()}

    def clear(self) -> None:
        self._targets.clear()
        self._places.clear()

    def find(self, destination: Destination) -> Target | None:
        """Where a destination is, ``None`` when there is no route."""
        find = self._targets.get
        service, namespace = destination.service, destination.namespace
        port, subset = destination.port, destination.subset
        return (
            find((service, namespace, port, subset))
            or find((service, namespace, 0, subset))
            or find((service, namespace, port, ""))
            or find((service, namespace, 0, ""))
        )

    def _target(self, url: str, identity: Identity | None) -> Target:
        known = self._places.get((url, identity))
        if known is None:
            known = self._places[(url, identity)] = Target(parse_place(url), identity)
        return known


def read_sni(sni: str) -> Destination | None:
    """The destination that a server name means; ``None`` when it is no service's name."""
    return _read_sni(sni) if len(sni) <= MAX_SNI else None


# A gate hears the same few names all day long.
@lru_cache(maxsize=1024)
def _read_sni(sni: str) -> Destination | None:
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

    URL is a tunnel's, whose path may be left out, or ``tcp://HOST:PORT``.

    Raises:
        ValueError: not of that form, or a name that has two URLs.
    """
    routes: dict[Key, Route] = {}
    for text in texts:
        name, equals, target = text.partition("=")
        if not equals:
            raise ValueError(f"route {text!r} is not NAME=URL")
        service, namespace, port = _read_name(name)
        url = str(Target(parse_place(target)))
        route = Route(service=service, namespace=namespace, port=port, url=url)
        known = routes.setdefault(route.key, route)
        if known != route:
            raise ValueError(f"route {name!r} has two URLs: {known.url} and {url}")
    return tuple(routes.values())


def parse_place(text: str) -> URL | Address:
    """Read a tunnel's URL, whose path may be left out, or ``tcp://HOST:PORT``.

    Raises:
        ValueError: neither.
    """
    if text.startswith(RAW):
        return parse_address(text.removeprefix(RAW))
    return parse_url(text, default_path=DEFAULT_PATH)


def _read_name(name: str) -> tuple[str, str, int]:
    host, colon, digits = name.partition(":")
    text = host.lower().removesuffix(".").removesuffix(".cluster.local").removesuffix(".svc")
    match = _HOST.fullmatch(text)
    port = int(digits) if digits.isascii() and digits.isdecimal() and len(digits) <= 5 else 0
    if match is None or (colon and not 0 < port < 65536):
        raise ValueError(f"route name {name!r} is not SERVICE.NAMESPACE, with or without .{DOMAIN} and :PORT")
    return match["service"], match["namespace"], port
