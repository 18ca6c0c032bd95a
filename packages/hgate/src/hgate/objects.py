"""What the mesh must know of a service outside: decides which objects, and in which order. Writes none.

They are those of manifests/sni-service-template.yaml, for a Service that somebody made or for one of ours.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hgate import declaration as words
from hgate import manifest, written
from hgate.declaration import Declaration, Port, Ref
from hgate.manifest import Manifest
from hgate.policy import Accepted
from hgate.routes import Route
from hgate.service_url import ServiceUrl

MAX_NAME = 63
MARK = 8  # characters of a hash in a name


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """One URL of a declaration, decided. ``service``: the one of the mesh that leads there."""

    service: str
    url: ServiceUrl
    accepted: Accepted
    weight: int = 1
    timeout: int = words.DEFAULT_TIMEOUT

    def workload(self, declaration: Declaration) -> str:
        """As krun calls the workload: its WORKLOAD_NAME."""
        return declaration.workload or self.url.name or declaration.service


@dataclass(frozen=True, kw_only=True, slots=True)
class Registered:
    """A declaration that is followed."""

    declaration: Declaration
    parts: tuple[Part, ...]

    @property
    def is_split(self) -> bool:
        """Whether calls are shared over several services of the mesh, one for each URL."""
        return len(self.parts) > 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Inward:
    """The side of a workload: what its Sidecar says, which several services may share."""

    namespace: str
    workload: str
    port: Port
    owners: tuple[Ref, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Surroundings:
    """What a namespace has already: Sidecars by labels of workloads, and the settings of the one for all of them."""

    selectors: Sequence[Mapping[str, str]] = ()
    usual: Mapping[str, Any] = field(default_factory=dict)

    def fits(self, workload: str) -> bool:
        """Tell whether somebody has made a Sidecar for this workload."""
        labels = {"app": workload, **manifest.identity_labels(workload)}
        return any(all(labels.get(key) == value for key, value in each.items()) for each in self.selectors)


def routes(registered: Registered) -> list[Route]:
    """Where the services of a declaration are."""
    declaration = registered.declaration

    def route(service: str, accepted: Accepted) -> Route:
        return Route(service=service, namespace=declaration.namespace, url=accepted.url, identity=accepted.identity)

    made = [route(part.service, part.accepted) for part in registered.parts]
    if registered.is_split:
        # Sidecars follow the VirtualService. Who has no control plane asks for the name itself: it gets the largest.
        largest = max(registered.parts, key=lambda part: part.weight)
        made.append(route(declaration.service, largest.accepted))
    return made


def backing_names(declaration: Declaration, urls: Sequence[ServiceUrl]) -> tuple[str, ...]:
    """Names of the services of the mesh that stand for the URLs: of one URL it is the declared service itself."""
    if len(urls) == 1:
        return (declaration.service,)
    plain = [_plain_name(declaration.service, url) for url in urls]
    return tuple(
        name
        if plain.count(name) == 1 and len(name) <= MAX_NAME and url.is_cloud_run and not url.tag
        else _marked(name, url)
        for name, url in zip(plain, urls, strict=True)
    )


def _plain_name(service: str, url: ServiceUrl) -> str:
    label = f"{url.name}-{url.region}" if url.region else url.host.partition(".")[0]
    return label if label.startswith(f"{service}-") else f"{service}-{label}"


def _marked(name: str, url: ServiceUrl) -> str:
    mark = hashlib.sha256(url.host.encode()).hexdigest()[:MARK]
    return f"{name[: MAX_NAME - MARK - 1].rstrip('-')}-{mark}"


def manifests(registered: Registered, *, gate: str, trust_domain: str) -> list[Manifest]:
    """All objects of a declaration but the workload's own side, in the order in which they are to be written."""
    declaration = registered.declaration
    made: list[Manifest] = []
    for part in registered.parts:
        made += _part(registered, part, gate=gate, trust_domain=trust_domain)
    if registered.is_split:
        if not declaration.is_there:
            made.append(manifest.service(declaration.service, declaration=declaration))
        shares = {part.service: part.weight for part in registered.parts}
        made.append(manifest.virtual_service(declaration, shares=shares))
    return [written.sealed(each, owners=(declaration.ref,)) for each in made]


def _part(registered: Registered, part: Part, *, gate: str, trust_domain: str) -> list[Manifest]:
    declaration = registered.declaration
    is_own = registered.is_split or not declaration.is_there
    keys = manifest.own_port_names(declaration.ports) if is_own else manifest.port_keys(declaration.ports)
    selector = {words.SERVICE: part.service} if is_own else dict(declaration.selector)
    # istiod takes a WorkloadEntry for a Service with a selector, if each of its ports has a name to be found by.
    by_entry = bool(selector) and all(keys)
    account = "" if by_entry else f"spiffe://{trust_domain}/ns/{declaration.namespace}/sa/{declaration.account}"
    rule = manifest.destination_rule(part.service, declaration=declaration, timeout=part.timeout, identity=account)
    if not by_entry:
        return [rule, manifest.endpoint_slice(part.service, declaration=declaration, gate=gate)]
    labels = {**manifest.identity_labels(part.workload(declaration)), **selector}
    entry = manifest.workload_entry(part.service, declaration=declaration, gate=gate, keys=keys, labels=labels)
    own = [manifest.service(part.service, declaration=declaration)] if is_own else []
    return [rule, *own, entry]


def inward(side: Inward, *, around: Surroundings) -> list[Manifest]:
    """The objects of the workload's own side."""
    made = [manifest.peer_authentication(side.workload, namespace=side.namespace)]
    if not around.fits(side.workload):
        made.append(manifest.sidecar(side.workload, namespace=side.namespace, port=side.port, usual=around.usual))
    return [written.sealed(each, owners=side.owners) for each in made]


def sides(registered: Iterable[Registered]) -> list[Inward]:
    """The workloads of all these, each once: of several services of one the oldest says where its application is."""
    found: dict[tuple[str, str], Inward] = {}
    for each in sorted(registered, key=lambda one: one.declaration.age):
        declaration = each.declaration
        for part in each.parts:
            key = (declaration.namespace, part.workload(declaration))
            side = found.get(key) or Inward(namespace=key[0], workload=key[1], port=declaration.ports[0])
            owners = side.owners if declaration.ref in side.owners else (*side.owners, declaration.ref)
            found[key] = Inward(namespace=key[0], workload=key[1], port=side.port, owners=owners)
    return list(found.values())
