"""What users declare: which service of the mesh is which services of Cloud Run, out of whichever object says so."""

from __future__ import annotations

from dataclasses import dataclass

PREFIX = "hgate.krun/"
URL = f"{PREFIX}url"
AUDIENCE = f"{PREFIX}audience"
TIMEOUT = f"{PREFIX}timeout"
WORKLOAD = f"{PREFIX}workload"
ACCOUNT = f"{PREFIX}service-account"
WRITTEN = f"{PREFIX}written"  # of our own objects: what we wrote
SERVICE = f"{PREFIX}service"  # label of our endpoints, and selector of our services
MANAGED_BY = "app.kubernetes.io/managed-by"
MANAGER = "hgate"
CONFIG_MAP = "hgate"  # of a namespace: names of services to URLs
DEFAULT_TIMEOUT = 300  # seconds: Cloud Run's own default
APP_PORT = 8080


@dataclass(frozen=True, kw_only=True, slots=True)
class Ref:
    """An object that declares. ``uid`` is empty where there is no object of Kubernetes behind it."""

    version: str
    kind: str
    namespace: str
    name: str
    uid: str = ""
    created: str = ""  # creationTimestamp: RFC 3339 in UTC, so that texts are in the order of time

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Port:
    """A port of a service. ``target``: the application's, or the name by which endpoints know it."""

    number: int
    name: str = ""
    target: int | str = 0
    protocol: str = "TCP"
    app_protocol: str = ""

    @property
    def app_port(self) -> int:
        """The application's own port, as far as it is said."""
        return self.target if isinstance(self.target, int) and self.target else APP_PORT


USUAL = (Port(number=8080, name="http", target=APP_PORT),)


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """One URL of a declaration, as it was written, and its share of the calls."""

    url: str
    weight: int = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Declaration:
    """A service of the mesh that is outside.

    ``is_there``: its Service is an object that somebody made; else it is made with the others. ``writes``: whether
    objects are made at all: who applied the template has them already.
    """

    ref: Ref
    service: str
    targets: tuple[Target, ...]
    audience: str = ""
    timeout: int = 0  # 0: not said
    workload: str = ""
    account: str = "default"
    ports: tuple[Port, ...] = USUAL
    selector: tuple[tuple[str, str], ...] = ()
    is_there: bool = False
    writes: bool = True

    @property
    def namespace(self) -> str:
        return self.ref.namespace

    @property
    def age(self) -> tuple[bool, str, str, str, str]:
        """Who declared first: what has no time is the youngest."""
        ref = self.ref
        return (not ref.created, ref.created, ref.namespace, ref.name, ref.kind)
