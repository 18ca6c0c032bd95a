"""Which declarations are followed: decides for all of a cluster at once, in an order that no restart changes.

Each must be allowed by the admins' map; its name in the mesh must be free; its services of Cloud Run must be its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from hgate import ownership, policy
from hgate.cloud_run import Service
from hgate.declaration import DEFAULT_TIMEOUT, Declaration, Ref, Target
from hgate.objects import Part, Registered, backing_names
from hgate.ownership import Claim, Known
from hgate.policy import Accepted, Policy
from hgate.refusal import Refused
from hgate.service_url import ServiceUrl, parse

API = "CloudRunService"  # the kind of what no object of Kubernetes declares

Services = Mapping[tuple[str, str], Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Judged:
    """``claims``: who was first to declare a service of Cloud Run, to be remembered."""

    registered: tuple[Registered, ...]
    refused: tuple[tuple[Declaration, Refused], ...]
    claims: Mapping[str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Allowed:
    """A declaration that its namespace may make."""

    declaration: Declaration
    urls: tuple[ServiceUrl, ...]
    accepted: tuple[Accepted, ...]
    names: tuple[str, ...]  # in the mesh, of each URL's service


def judge(declared: Iterable[Declaration], *, known: Known, services: Services, claims: Mapping[str, str]) -> Judged:
    """Decide about all declarations. ``services``: those that somebody has made, by namespace and name."""
    refused: list[tuple[Declaration, Refused]] = []
    rows = list(declared)
    allowed = _allowed(rows, known=known, refused=refused)
    # What its own namespace has declared under a name that it chose needs no second one; others do not count.
    named = {(each.declaration.namespace, known.key_of(url)) for each in allowed for url in each.urls}
    listed = [
        each for each in _listed(known) if (each.namespace, known.key_of(parse(each.targets[0].url))) not in named
    ]
    allowed += _allowed(listed, known=known, refused=refused)
    free = _within(_free(allowed, services=services, refused=refused), given=known.policy, refused=refused)
    owners = ownership.decide(
        (Claim(declaration=each.declaration, urls=each.urls) for each in free), known=known, claims=claims
    )
    refused += owners.refused.items()
    made = tuple(_registered(each, known=known) for each in free if each.declaration not in owners.refused)
    return Judged(registered=made, refused=tuple(refused), claims=owners.claims)


def _allowed(
    declared: Iterable[Declaration], *, known: Known, refused: list[tuple[Declaration, Refused]]
) -> list[_Allowed]:
    made = []
    for each in declared:
        try:
            made.append(_allow(each, known=known))
        except Refused as error:
            refused.append((each, error))
    return made


def _allow(declared: Declaration, *, known: Known) -> _Allowed:
    rule = known.policy.of(declared.namespace)
    urls = tuple(parse(target.url) for target in declared.targets)
    accepted = tuple(
        policy.check(
            rule,
            url,
            namespace=declared.namespace,
            audience=declared.audience,
            project=known.project_of(url),
            own=known.own,
        )
        for url in urls
    )
    return _Allowed(declaration=declared, urls=urls, accepted=accepted, names=backing_names(declared, urls))


def _listed(known: Known) -> Iterable[Declaration]:
    """What the Cloud Run API declares: services that say which namespace they are of."""
    for service in {each.resource: each for each in known.services.values()}.values():
        if service.namespace:
            ref = Ref(version="run.googleapis.com/v2", kind=API, namespace=service.namespace, name=service.resource)
            yield Declaration(ref=ref, service=service.name, targets=(Target(url=str(service.urls[0])),))


def _free(
    allowed: Iterable[_Allowed], *, services: Services, refused: list[tuple[Declaration, Refused]]
) -> list[_Allowed]:
    """Those whose names in the mesh are nobody else's; of two the older stays."""
    taken: dict[tuple[str, str], _Allowed] = {}
    made = []
    for each in sorted(allowed, key=lambda one: one.declaration.age):
        declaration = each.declaration
        names = dict.fromkeys((declaration.service, *each.names))
        others = [taken[declaration.namespace, name] for name in names if (declaration.namespace, name) in taken]
        if others:
            # Said twice is not said otherwise: the template by hand beside an annotation, for one.
            if not all(
                other.urls == each.urls and other.declaration.service == declaration.service for other in others
            ):
                hint = f"{others[0].declaration.ref} declares it, and is older: take one of the two away"
                refused.append((declaration, Refused("another declaration has this name in the mesh", hint=hint)))
            continue
        if clash := _clash(each, services=services):
            refused.append((declaration, clash))
            continue
        taken.update({(declaration.namespace, name): each for name in names})
        made.append(each)
    return made


def _within(free: Iterable[_Allowed], *, given: Policy, refused: list[tuple[Declaration, Refused]]) -> list[_Allowed]:
    """As many of each namespace, the oldest first, as it may have: each costs objects, and memory of every sidecar."""
    counts: Counter[str] = Counter()
    made = []
    for each in free:
        declaration = each.declaration
        limit = given.of(declaration.namespace).limit
        count = len({declaration.service, *each.names})
        if counts[declaration.namespace] + count > limit:
            hint = f"take others away, or ask an admin of the mesh for a higher limit: in {policy.WHERE}"
            refused.append((declaration, Refused(f"the namespace may have {limit} services outside", hint=hint)))
        else:
            counts[declaration.namespace] += count
            made.append(each)
    return made


def _clash(each: _Allowed, *, services: Services) -> Refused | None:
    """Why a Service that we would have to make cannot be: somebody has made one of the name for something else."""
    declaration = each.declaration
    if not declaration.writes:
        return None
    own = set(each.names) - ({declaration.service} if declaration.is_there else set())
    if len(each.names) > 1 and not declaration.is_there:
        own.add(declaration.service)
    for name in sorted(own):
        if (declaration.namespace, name) in services:
            return Refused(
                f"a Service {declaration.namespace}/{name} is there, and says nothing of the gate",
                hint="annotate that Service with hgate.krun/url, or rename it",
            )
    return None


def _registered(each: _Allowed, *, known: Known) -> Registered:
    declaration = each.declaration
    parts = []
    for url, accepted, name, target in zip(each.urls, each.accepted, each.names, declaration.targets, strict=True):
        service: Service | None = known.services.get(url.service_host)
        timeout = declaration.timeout or (service.timeout if service else 0) or DEFAULT_TIMEOUT
        parts.append(Part(service=name, url=url, accepted=accepted, weight=target.weight, timeout=timeout))
    return Registered(declaration=declaration, parts=tuple(parts))
