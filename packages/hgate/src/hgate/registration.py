"""All declarations of a cluster, and what follows from them: routes, objects, refusals. Pure: it is told, and asked.

``put`` and ``drop`` cost little for what declares nothing: a cluster has far more Services than the few that do.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hgate import (
    cloud_run,
    declaration_read,
    events,
    foreign_rule,
    judge,
    manifest,
    objects,
    ownership,
    policy_text,
    written,
)
from hgate.declaration import CONFIG_MAP, Declaration
from hgate.foreign_rule import ForeignRule
from hgate.judge import Judged
from hgate.manifest import Manifest
from hgate.objects import Inward, Registered, Surroundings
from hgate.policy import DEFAULT, NAMESPACE, WHERE, Listed, Policy
from hgate.refusal import Refusal, Refused
from hgate.routes import Identity, Route

CLAIMS = "hgate-claims"  # the config map that remembers who declared a Cloud Run service first
SYSTEM = NAMESPACE
Object = Mapping[str, Any]
Key = tuple[str, str, str]


@dataclass(frozen=True, kw_only=True)
class Result:
    """What follows. Not ``is_settled``: something is not known yet, and ``wanted`` is not all: delete nothing.

    ``known``: uids of all objects that were judged. What belongs to none of them may belong to one not seen yet.
    """

    routes: tuple[Route, ...]
    wanted: list[Manifest]
    refused: list[Refusal]
    hindered: list[Refusal]  # what others declare so that calls do not come through
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
        self._entries: dict[Key, Object] = {}
        self._maps: dict[tuple[str, str], str] = {}  # uids of config maps
        self._rules: dict[tuple[str, str], ForeignRule] = {}
        self._read: dict[Key, list[Declaration | Refusal]] = {}
        self._claims: dict[str, str] = {}
        self._listed: list[cloud_run.Service] | None = None
        self._policy: Policy | None = DEFAULT
        self._policy_error = ""
        self._is_told = False
        self._built: dict[tuple[Registered, str], list[Manifest]] = {}
        self._sides: dict[Inward, tuple[Surroundings, list[Manifest]]] = {}
        self._result: Result | None = None  # until something that matters has changed
        if policy_text is not None:
            self.policy(policy_text)
        self.gate(gate_address)

    def policy(self, text: str | None) -> None:
        """The admins' map, ``None`` when there is none. One that cannot be read leaves the last good one in force."""
        self._result = None
        try:
            self._policy, self._policy_error = policy_text.read(text) if text is not None else DEFAULT, ""
        except policy_text.PolicyError as error:
            self.policy_unknown(str(error))
        self._is_told = True

    def policy_unknown(self, reason: str) -> None:
        """What the map says cannot be told. Without one from before, nothing is allowed, and nothing deleted."""
        self._result = None
        if not self._is_told:
            self._policy = None
        self._policy_error = f"{WHERE}: {reason}"

    @property
    def listed(self) -> tuple[Listed, ...]:
        """What the admins let us ask the Cloud Run API for."""
        return self._policy.cloud_run if self._policy else ()

    def project(self, number: str) -> None:
        """The gate's own project, by its number."""
        if number != self._own:
            self._own, self._result = number, None

    def trust_domain(self, text: str) -> None:
        """The mesh's: callers insist on identities of it."""
        if text != self._trust_domain:
            self._trust_domain, self._result = text, None
            self._built.clear()

    def gate(self, addresses: str | Sequence[str]) -> None:
        """Where the gate is now, as far as it is known."""
        given = (addresses,) if isinstance(addresses, str) else tuple(addresses)
        found = tuple(address for address in given if address)
        if found != self._gates:
            self._gates, self._result = found, None
            self._built.clear()
            for key, item in self._entries.items():
                self._declare(key, item)

    def cloud_run(self, services: Iterable[cloud_run.Service]) -> None:
        """All that the Cloud Run API lists; to be called with complete answers only."""
        listed = list(services)
        if listed != self._listed:
            self._listed, self._result = listed, None

    def put(self, kind: str, item: Object) -> None:
        """An object that is new, or has changed. What we have written comes back so, too, and changes nothing."""
        metadata = item["metadata"]
        place = (metadata["namespace"], metadata["name"])
        if kind == "Sidecar":
            self._note(self._sidecars.setdefault(place[0], {}), place[1], _spec_of_somebody(item))
        elif kind == "DestinationRule":
            self._note(self._rules, place, foreign_rule.read(item))
        elif kind == "ConfigMap" and place == (SYSTEM, CLAIMS):
            claims = dict(item.get("data") or {})
            if claims != self._claims:
                self._claims, self._result = claims, None
        elif kind in ("Service", "WorkloadEntry") or (kind == "ConfigMap" and place[1] == CONFIG_MAP):
            if kind == "Service":
                self._note(self._services, place, _slim(item))
            if kind == "ConfigMap":
                self._note(self._maps, place, str(metadata.get("uid", "")))
            self._declare((kind, *place), item)

    def drop(self, kind: str, namespace: str, name: str) -> None:
        """An object that is gone."""
        place = (namespace, name)
        if kind == "Sidecar":
            self._note(self._sidecars.get(namespace, {}), name, None)
        elif kind == "DestinationRule":
            self._note(self._rules, place, None)
        elif kind == "Service":
            self._note(self._services, place, None)
        elif kind == "ConfigMap":
            self._note(self._maps, place, None)
        self._declare((kind, *place), None)

    def _note(self, kept: dict[Any, Any], key: object, value: object) -> None:
        """Keep what matters of an object, nothing for ``None``; only another value is a change."""
        if kept.get(key) != value:
            self._result = None
            if value is None:
                del kept[key]
            else:
                kept[key] = value

    def _declare(self, key: Key, item: Object | None) -> None:
        # What is being deleted declares nothing more: its objects would be made anew while others delete them.
        is_leaving = item is None or item["metadata"].get("deletionTimestamp")
        found = [] if item is None or is_leaving else self._declarations(key[0], item)
        self._note(self._read, key, found or None)
        if key[0] == "WorkloadEntry":  # which of them are meant depends on where the gate is
            if item is None:
                self._entries.pop(key, None)
            else:
                self._entries[key] = item

    def result(self) -> Result:
        """What follows from all of it now; the same object as long as nothing has changed."""
        if self._result is None:
            self._result = self._follow()
        return self._result

    def _follow(self) -> Result:
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
            hindered=self._hindered(judged),
            registered=judged.registered,
            identities=frozenset(
                part.accepted.identity
                for each in judged.registered
                for part in each.parts
                if part.accepted.identity is not None
            ),
            known=frozenset((*self._maps.values(), *(each["uid"] for each in self._services.values()))),
            policy_error=self._policy_error,
            is_settled=bool(self._gates)
            and self._policy is not None
            and (bool(self._own) or not self._policy.names_own),
            has_cloud_run=has_cloud_run,
        )

    def _wanted(self, judged: Judged, *, had_claims: bool) -> list[Manifest]:
        """By declaration, so that of many the first work before the last are written."""
        followed = [each for each in judged.registered if each.declaration.writes]
        # First of all: what is written after it would be of nobody if we were killed.
        claims = manifest.config_map(CLAIMS, namespace=SYSTEM, data=judged.claims)
        made: list[Manifest] = [written.sealed(claims)] if judged.claims or had_claims else []
        sides = {(side.namespace, side.workload): side for side in objects.sides(followed)}
        around = {namespace: self._around(namespace) for namespace in {key[0] for key in sides}}
        built, kept = self._built, self._sides
        self._built, self._sides = {}, {}
        for each in followed:
            for part in each.parts:
                side = sides.pop((each.declaration.namespace, part.workload(each.declaration)), None)
                if side is not None:
                    made += self._side(side, around[side.namespace], kept=kept)
            key = (each, self._gates[0])
            self._built[key] = built.get(key) or objects.manifests(
                each, gate=self._gates[0], trust_domain=self._trust_domain
            )
            made += self._built[key]
        return made

    def _side(
        self, side: Inward, around: Surroundings, *, kept: Mapping[Inward, tuple[Surroundings, list[Manifest]]]
    ) -> list[Manifest]:
        before = kept.get(side)
        made = before[1] if before and before[0] == around else objects.inward(side, around=around)
        self._sides[side] = (around, made)
        return made

    def _around(self, namespace: str) -> Surroundings:
        """What people have made of Sidecars: the common one of a namespace wins over that of the whole mesh."""
        selectors, usual = _split(self._sidecars.get(namespace, {}))
        if not usual:
            _, usual = _split(self._sidecars.get(SYSTEM, {}))
        return Surroundings(selectors=selectors, usual=usual)

    def _hindered(self, judged: Judged) -> list[Refusal]:
        services = [(part.service, each.declaration.namespace) for each in judged.registered for part in each.parts]
        found = foreign_rule.reasons(self._rules.values(), services) if self._rules else ()
        return [
            Refusal(ref=rule.ref, reason=reason, hint=hint, event=events.NOT_MUTUAL) for rule, reason, hint in found
        ]

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
        if service is None:
            return declared
        try:
            ports = declaration_read.ports(service)
        except Refused:
            return declared  # the judge says that the name is taken
        selector = tuple(sorted((service["spec"].get("selector") or {}).items()))
        return replace(declared, ports=ports, selector=selector, is_there=True)

    def _declarations(self, kind: str, item: Object) -> list[Declaration | Refusal]:
        return list(self._each_declaration(kind, item))

    def _each_declaration(self, kind: str, item: Object) -> Iterator[Declaration | Refusal]:
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


def _slim(item: Object) -> Object | None:
    """What is asked of a Service of somebody's that declares nothing: that its name is taken, and its ports."""
    if written.is_ours(item):
        return None
    spec = item.get("spec") or {}
    said = {key: spec[key] for key in ("ports", "selector", "type", "clusterIP") if key in spec}
    return {"uid": item["metadata"].get("uid", ""), "spec": said}


def _spec_of_somebody(item: Object) -> Mapping[str, Any] | None:
    return None if written.is_ours(item) else item.get("spec") or {}


def _split(sidecars: Mapping[str, Mapping[str, Any]]) -> tuple[tuple[Mapping[str, str], ...], Mapping[str, Any]]:
    """Of a namespace: the labels of workloads that have one of their own, and the one for all others."""
    labels = {name: (spec.get("workloadSelector") or {}).get("labels") or {} for name, spec in sidecars.items()}
    common = [sidecars[name] for name in sorted(sidecars) if not labels[name]]
    return tuple(each for each in labels.values() if each), common[0] if common else {}
