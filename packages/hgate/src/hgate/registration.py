"""All declarations of a cluster, and what follows from them: routes, objects, refusals. Pure: it is told, and asked.

``put`` and ``drop`` cost little for what declares nothing: a cluster has far more Services than the few that do.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hgate import cloud_run, declaration_read, judge, manifest, objects, ownership, policy_text, written
from hgate.declaration import CONFIG_MAP, MANAGED_BY, MANAGER, Declaration, Ref
from hgate.judge import Judged
from hgate.manifest import Manifest
from hgate.objects import Registered, Surroundings
from hgate.policy import DEFAULT, NAMESPACE, WHERE, Listed, Policy
from hgate.refusal import Refused
from hgate.routes import Identity, Route

CLAIMS = "hgate-claims"  # the config map that remembers who declared a Cloud Run service first
SYSTEM = NAMESPACE
Object = Mapping[str, Any]
Key = tuple[str, str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Refusal:
    """A declaration that is not followed, and why. ``what``: which part of its object, where there are several."""

    ref: Ref
    reason: str
    hint: str
    what: str = ""


@dataclass(frozen=True, kw_only=True)
class Result:
    """What follows. Not ``is_settled``: something is not known yet, and ``wanted`` is not all: delete nothing.

    ``known``: uids of all objects that were judged. What belongs to none of them may belong to one not seen yet.
    """

    routes: tuple[Route, ...]
    wanted: list[Manifest]
    refused: list[Refusal]
    registered: tuple[Registered, ...]
    identities: frozenset[Identity]
    known: frozenset[str]
    policy_error: str
    is_settled: bool
    has_cloud_run: bool


class Registry:
    """``own_project``: the number of the gate's. ``gate_address``: where sidecars reach it; of several the first."""

    def __init__(
        self,
        policy_text: str | None = None,
        gate_address: str | Sequence[str] = "",
        own_project: str = "",
        trust_domain: str = "cluster.local",
    ) -> None:
        self._own = own_project
        self._trust_domain = trust_domain
        self._gates: tuple[str, ...] = ()
        self._services: dict[tuple[str, str], Object] = {}
        self._sidecars: dict[str, dict[str, Mapping[str, Any]]] = {}  # by namespace and name, those of people
        self._objects: dict[Key, Object] = {}  # those that declare, or may
        self._read: dict[Key, list[Declaration | Refusal]] = {}
        self._claims: dict[str, str] = {}
        self._listed: list[cloud_run.Service] | None = None
        self._policy: Policy | None = DEFAULT
        self._policy_error = ""
        self._is_told = False
        self._built: dict[tuple[Registered, str], list[Manifest]] = {}
        if policy_text is not None:
            self.policy(policy_text)
        self.gate(gate_address)

    def policy(self, text: str | None) -> None:
        """The admins' map, ``None`` when there is none. One that cannot be read leaves the last good one in force."""
        try:
            self._policy, self._policy_error = policy_text.read(text) if text is not None else DEFAULT, ""
        except policy_text.PolicyError as error:
            self.policy_unknown(str(error))
        self._is_told = True

    def policy_unknown(self, reason: str) -> None:
        """What the map says cannot be told. Without one from before, nothing is allowed, and nothing deleted."""
        if not self._is_told:
            self._policy = None
        self._policy_error = f"{WHERE}: {reason}"

    @property
    def listed(self) -> tuple[Listed, ...]:
        """What the admins let us ask the Cloud Run API for."""
        return self._policy.cloud_run if self._policy else ()

    def project(self, number: str) -> None:
        """The gate's own project, by its number."""
        self._own = number

    def trust_domain(self, text: str) -> None:
        """The mesh's: callers insist on identities of it."""
        if text != self._trust_domain:
            self._trust_domain = text
            self._built.clear()

    def gate(self, addresses: str | Sequence[str]) -> None:
        """Where the gate is now, as far as it is known."""
        given = (addresses,) if isinstance(addresses, str) else tuple(addresses)
        found = tuple(address for address in given if address)
        if found != self._gates:
            self._gates = found
            self._built.clear()
            for key, item in self._objects.items():
                if key[0] == "WorkloadEntry":
                    self._read[key] = list(self._declarations(key[0], item))

    def cloud_run(self, services: Iterable[cloud_run.Service]) -> None:
        """All that the Cloud Run API lists; to be called with complete answers only."""
        self._listed = list(services)

    def put(self, kind: str, item: Object) -> None:
        """An object that is new, or has changed."""
        metadata = item["metadata"]
        place = (metadata["namespace"], metadata["name"])
        if kind == "ConfigMap" and place == (SYSTEM, CLAIMS):
            self._claims = dict(item.get("data") or {})
            return
        if kind == "Service":
            self._services[place] = _slim(item)
        elif kind == "Sidecar":
            if not written.is_ours(item):
                self._sidecars.setdefault(place[0], {})[place[1]] = item.get("spec") or {}
            return
        elif kind not in ("WorkloadEntry", "ConfigMap") or (kind == "ConfigMap" and place[1] != CONFIG_MAP):
            return
        key = (kind, *place)
        # What is being deleted declares nothing more: its objects would be made anew while others delete them.
        found = [] if metadata.get("deletionTimestamp") else list(self._declarations(kind, item))
        if found or kind != "Service":
            self._objects[key], self._read[key] = item, found
        else:
            self._forget(key)

    def drop(self, kind: str, namespace: str, name: str) -> None:
        """An object that is gone."""
        if kind == "Service":
            self._services.pop((namespace, name), None)
        elif kind == "Sidecar":
            self._sidecars.get(namespace, {}).pop(name, None)
        self._forget((kind, namespace, name))

    def result(self) -> Result:
        """What follows from all of it now."""
        refused = [each for found in self._read.values() for each in found if isinstance(each, Refusal)]
        known = self._known()
        had_claims = bool(self._claims)
        judged = judge.judge(self._declared(), known=known, services=self._services, claims=self._claims)
        if self._policy is not None:  # else it is no fault of theirs
            refused += [
                Refusal(ref=each.ref, reason=error.reason, hint=error.hint, what=each.service)
                for each, error in judged.refused
            ]
        # Remembered before the cluster tells it back: an older object that comes in between is not the first.
        if self._policy is not None:
            self._claims = dict(judged.claims)
        has_cloud_run = not self.listed or self._listed is not None
        return Result(
            routes=tuple(route for each in judged.registered for route in objects.routes(each)),
            wanted=self._wanted(judged, had_claims=had_claims) if self._gates and self._policy else [],
            refused=refused,
            registered=judged.registered,
            identities=frozenset(
                part.accepted.identity
                for each in judged.registered
                for part in each.parts
                if part.accepted.identity is not None
            ),
            known=frozenset(
                item["metadata"].get("uid", "") for item in (*self._objects.values(), *self._services.values())
            ),
            policy_error=self._policy_error,
            is_settled=bool(self._gates)
            and self._policy is not None
            and (bool(self._own) or not self._policy.names_own),
            has_cloud_run=has_cloud_run,
        )

    def _wanted(self, judged: Judged, *, had_claims: bool) -> list[Manifest]:
        followed = [each for each in judged.registered if each.declaration.writes]
        made: list[Manifest] = []
        for side in objects.sides(followed):
            made += objects.inward(side, around=self._around(side.namespace))
        for each in followed:
            key = (each, self._gates[0])
            if key not in self._built:
                self._built[key] = objects.manifests(each, gate=self._gates[0], trust_domain=self._trust_domain)
            made += self._built[key]
        if len(self._built) > 2 * len(followed) + 64:
            self._built = {(each, self._gates[0]): self._built[each, self._gates[0]] for each in followed}
        # First of all: what is written after it would be of nobody if we were killed.
        claims = manifest.config_map(CLAIMS, namespace=SYSTEM, data=judged.claims)
        return ([written.sealed(claims)] if judged.claims or had_claims else []) + made

    def _around(self, namespace: str) -> Surroundings:
        """What people have made of Sidecars: the common one of a namespace wins over that of the whole mesh."""
        selectors, usual = _split(self._sidecars.get(namespace, {}))
        if not usual:
            _, usual = _split(self._sidecars.get(SYSTEM, {}))
        return Surroundings(selectors=selectors, usual=usual)

    def _known(self) -> ownership.Known:
        given = self._policy or Policy()
        allowed = {(each.project, region) for each in given.cloud_run for region in each.regions}
        services = {
            url.host: service
            for service in self._listed or ()
            if {(service.resource.split("/")[1], service.region), (service.project, service.region)} & allowed
            for url in service.urls
        }
        return ownership.Known(policy=given, services=services, own=self._own)

    def _declared(self) -> Iterator[Declaration]:
        for found in self._read.values():
            for each in found:
                if isinstance(each, Declaration):
                    yield self._attached(each) if each.ref.kind == "ConfigMap" else each

    def _attached(self, declared: Declaration) -> Declaration:
        """A declaration by config map has the ports of a Service of its name that somebody made."""
        service = self._services.get((declared.namespace, declared.service))
        if service is None or written.is_ours(service):
            return declared
        try:
            ports = declaration_read.ports(service)
        except Refused:
            return declared  # the judge says that the name is taken
        selector = tuple(sorted((service["spec"].get("selector") or {}).items()))
        return replace(declared, ports=ports, selector=selector, is_there=True)

    def _declarations(self, kind: str, item: Object) -> Iterator[Declaration | Refusal]:
        """What an object declares; what cannot be read is a refusal already."""
        if kind == "ConfigMap":
            ref = declaration_read.ref_of(item, kind=kind)
            for each in declaration_read.of_config_map(item):
                if isinstance(each, Declaration):
                    yield each
                else:
                    yield Refusal(ref=ref, reason=each[1].reason, hint=each[1].hint, what=each[0])
            return
        try:
            found = (
                declaration_read.of_service(item)
                if kind == "Service"
                else declaration_read.of_workload_entry(item, gates=frozenset(self._gates))
            )
        except Refused as error:
            yield Refusal(ref=declaration_read.ref_of(item, kind=kind), reason=error.reason, hint=error.hint)
            return
        if found is not None:
            yield found

    def _forget(self, key: Key) -> None:
        self._objects.pop(key, None)
        self._read.pop(key, None)


def _slim(item: Object) -> Object:
    """What is asked of a Service that declares nothing: whose it is, and its ports."""
    mark = {MANAGED_BY: MANAGER} if written.is_ours(item) else {}
    return {"metadata": {"uid": item["metadata"].get("uid", ""), "labels": mark}, "spec": item.get("spec") or {}}


def _split(sidecars: Mapping[str, Mapping[str, Any]]) -> tuple[tuple[Mapping[str, str], ...], Mapping[str, Any]]:
    """Of a namespace: the labels of workloads that have one of their own, and the one for all others."""
    labels = {name: (spec.get("workloadSelector") or {}).get("labels") or {} for name, spec in sidecars.items()}
    common = [sidecars[name] for name in sorted(sidecars) if not labels[name]]
    return tuple(each for each in labels.values() if each), common[0] if common else {}
