"""Which namespace a Cloud Run service is of, when several name it: decides, for all declarations at once.

What the admins' map gives by name is settled; then what the Cloud Run API says of the service; then who declared it
first. "First" is remembered (``claims``): an object's age says nothing of when our annotation came to it, and a
namespace with an old Service must not take a running one from another by naming it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from hgate.cloud_run import Service, service_key
from hgate.declaration import Declaration
from hgate.policy import Claims, Policy
from hgate.refusal import Refused
from hgate.service_url import ServiceUrl

ROUNDS = 5  # a claim that falls lets others in, which may fall themselves
ASK = "ask an admin of the mesh for services: in istio-system/hgate-policy, under your namespace"


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """A declaration whose own namespace may use its URLs."""

    declaration: Declaration
    urls: tuple[ServiceUrl, ...]

    @property
    def namespace(self) -> str:
        return self.declaration.namespace


@dataclass(frozen=True, kw_only=True)
class Owners:
    """``refused``: by declaration, and why; ``claims``: who was first, of services that nothing else decides."""

    refused: Mapping[Declaration, Refused]
    claims: Mapping[str, str]


@dataclass(kw_only=True)
class Known:
    """What decides beside the declarations: the admins' map, what the API says by host, the gate's own project."""

    policy: Policy
    services: Mapping[str, Service] = field(default_factory=dict)  # by host
    own: str = ""
    _given: dict[ServiceUrl, frozenset[str]] = field(default_factory=dict, repr=False)
    _claims: Claims = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._claims = self.policy.claims()

    def given(self, url: ServiceUrl) -> frozenset[str]:
        """To which namespaces the admins' map gives this very service."""
        found = self._given.get(url)
        if found is None:
            found = self._given[url] = self._claims.of(url, project=self.project_of(url), own=self.own)
        return found

    def project_of(self, url: ServiceUrl) -> str:
        known = self.services.get(url.service_host)
        return url.project or (known.project if known else "")

    def key_of(self, url: ServiceUrl) -> str:
        """One key for both forms of a service's URL, where the API has told which belong together."""
        known = self.services.get(url.service_host)
        return known.key if known else service_key(url)


def decide(claimed: Iterable[Claim], *, known: Known, claims: Mapping[str, str]) -> Owners:
    """Decide for all of them."""
    rows = sorted(claimed, key=lambda claim: claim.declaration.age)
    owners = _round(rows, known=known, claims=claims)
    for _ in range(ROUNDS):
        following = _round(rows, known=known, claims=owners.claims)
        if following == owners:
            break
        owners = following
    return owners


def _round(rows: list[Claim], *, known: Known, claims: Mapping[str, str]) -> Owners:
    declared: dict[str, set[str]] = {}
    for claim in rows:
        for url in claim.urls:
            declared.setdefault(known.key_of(url), set()).add(claim.namespace)
    # A claim lasts as long as its namespace declares the service.
    owners = {key: namespace for key, namespace in claims.items() if namespace in declared.get(key, ())}
    held = dict(owners)
    refused: dict[Declaration, Refused] = {}
    firsts: dict[str, str] = {}
    forms = _Forms()
    for claim in sorted(rows, key=lambda each: not _holds(each, known=known, held=held)):
        try:
            first = [_check(claim, url, known=known, owners=owners, forms=forms) for url in claim.urls]
        except Refused as error:
            refused[claim.declaration] = error
            continue
        firsts.update({key: claim.namespace for key in first if key})
        owners.update(firsts)
        for url in claim.urls:
            forms.note(url, claim.namespace)
    return Owners(refused=refused, claims=firsts)


def _holds(claim: Claim, *, known: Known, held: Mapping[str, str]) -> bool:
    return any(held.get(known.key_of(url)) == claim.namespace for url in claim.urls)


def _check(claim: Claim, url: ServiceUrl, *, known: Known, owners: Mapping[str, str], forms: _Forms) -> str:
    """The key that is claimed by being first, ``""`` when something else decides. Raises Refused."""
    namespace = claim.namespace
    given = known.given(url)
    if given and namespace not in given:
        raise Refused(f"{url.service_host} is given to another namespace by the admins of the mesh", hint=ASK)
    if len(given) == 1:
        return ""
    service = known.services.get(url.service_host)
    if service is not None and service.namespace:
        if service.namespace != namespace:
            raise Refused(
                f"the Cloud Run service {url.name} says that it is of another namespace",
                hint=f"set its label krun-namespace to {namespace}, or {ASK}",
            )
        return ""
    key = known.key_of(url)
    if owners.get(key, namespace) != namespace:
        raise Refused(f"{url.service_host} was declared by another namespace first", hint=ASK)
    if not given and service is None and forms.is_taken(url, namespace):
        raise Refused(
            f"another namespace has declared a service {url.name} by the other form of its URL: it may be this one",
            hint=f"declare the form https://NAME-PROJECTNUMBER.REGION.run.app, or {ASK}",
        )
    return key


class _Forms:
    """Which namespaces use a service's name, by the form of its URL.

    NAME-HASH-RC and NAME-PROJECTNUMBER.REGION may be one service: without the API nobody can tell.
    """

    def __init__(self) -> None:
        self._namespaces: dict[tuple[str, bool], set[str]] = {}

    def note(self, url: ServiceUrl, namespace: str) -> None:
        if url.is_cloud_run:
            self._namespaces.setdefault((url.name, bool(url.project)), set()).add(namespace)

    def is_taken(self, url: ServiceUrl, namespace: str) -> bool:
        others = self._namespaces.get((url.name, not url.project), set()) if url.is_cloud_run else set()
        return bool(others - {namespace})
