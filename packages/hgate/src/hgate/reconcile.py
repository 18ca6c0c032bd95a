"""Brings the cluster's objects to what is wanted: decides the steps, and takes them.

What is missing is made, what is ours and untouched is kept right or taken away, what a person has changed is left. Each
step stands alone: whoever is killed between two leaves a state from which the next decides the rest.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from hgate import events, written
from hgate.declaration import Ref
from hgate.events import Told
from hgate.kube_answer import Answer
from hgate.manifest import NETWORKING, SECURITY
from hgate.refusal import Refusal
from hgate.written import Key

log = logging.getLogger(__name__)

PLURALS = {
    "ConfigMap": "configmaps",
    "DestinationRule": "destinationrules",
    "EndpointSlice": "endpointslices",
    "Event": "events",
    "PeerAuthentication": "peerauthentications",
    "Service": "services",
    "Sidecar": "sidecars",
    "VirtualService": "virtualservices",
    "WorkloadEntry": "workloadentries",
}
SAID = {events.REFUSED: "refused", events.KEPT: "left as it is", events.NOT_MUTUAL: "calls cannot pass"}
MAX_EVENTS = 25  # new ones of a namespace in one round
# In which order kinds go: endpoints before what makes calls to them mutual TLS.
LEAVING = (
    "VirtualService",
    "WorkloadEntry",
    "EndpointSlice",
    "Service",
    "Sidecar",
    "PeerAuthentication",
    "DestinationRule",
    "ConfigMap",
)
VERSIONS = {
    "ConfigMap": "v1",
    "DestinationRule": NETWORKING,
    "EndpointSlice": "discovery.k8s.io/v1",
    "PeerAuthentication": SECURITY,
    "Service": "v1",
    "Sidecar": NETWORKING,
    "VirtualService": NETWORKING,
    "WorkloadEntry": NETWORKING,
}
Object = Mapping[str, Any]
Seen = Mapping[Key, Object]


class Api(Protocol):
    """What is asked of the API server. All but ``get`` raise Answer for a status of 400 and more."""

    def get(self, path: str) -> dict[str, Any] | None: ...
    def create(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]: ...
    def replace(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]: ...
    def delete(self, path: str, *, uid: str = "", version: str = "") -> bool: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Create:
    """It is missing."""

    item: Object


@dataclass(frozen=True, kw_only=True, slots=True)
class Replace:
    """It is ours, and says something else."""

    item: Object
    old: Object


@dataclass(frozen=True, kw_only=True, slots=True)
class Delete:
    """It is ours, and nobody wants it any more. ``doubtful``: of an owner that nobody has seen, who may be there."""

    old: Object
    doubtful: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Keep:
    """It was ours, and a person has changed it."""

    old: Object


Step = Create | Replace | Delete | Keep


@dataclass(kw_only=True)
class Done:
    """What was done. ``failed``: what the server has refused, each with its answer."""

    created: int = 0
    replaced: int = 0
    deleted: int = 0
    kept: list[Key] = field(default_factory=list)
    failed: list[tuple[Key, Answer]] = field(default_factory=list)
    owners: dict[str, bool] = field(default_factory=dict)  # by uid: whether it is there, as the server said

    @property
    def is_changed(self) -> bool:
        return bool(self.created or self.replaced or self.deleted)


def plan(
    wanted: Iterable[Object],
    seen: Seen,
    *,
    may_delete: bool = False,
    known: Collection[str] = (),
    has_cloud_run: bool = False,
) -> list[Step]:
    """The steps from what is seen to what is wanted.

    ``known``: uids of all owners that were judged; ``has_cloud_run``: so were those that are no objects.
    """
    steps: list[Step] = []
    keys = set()
    for item in wanted:
        key = written.key_of(item)
        keys.add(key)
        if key not in seen:
            steps.append(Create(item=item))
        elif (step := _against(item, whole(key, seen[key]))) is not None:
            steps.append(step)
    for key in sorted(seen, key=lambda each: LEAVING.index(each[0]) if each[0] in LEAVING else -1):
        old = whole(key, seen[key])
        if key in keys or key[0] not in LEAVING or not written.is_ours(old) or not written.seal_of(old):
            continue
        if not written.is_untouched(old):
            steps.append(Keep(old=old))
        elif may_delete:
            owners = old["metadata"].get("ownerReferences") or ()
            if owners or has_cloud_run:
                doubtful = tuple(owner for owner in owners if owner["uid"] not in known)
                steps.append(Delete(old=old, doubtful=doubtful))
    return steps


def whole(key: Key, item: Object) -> Object:
    """With its kind, which the server leaves away in lists."""
    return {"apiVersion": VERSIONS.get(key[0], "v1"), "kind": key[0], **item}


def _against(item: Object, old: Object) -> Replace | Keep | None:
    if not written.is_ours(old):
        return None  # somebody's own
    if not written.is_untouched(old):
        return Keep(old=old)
    is_same = written.seal_of(item) == written.seal_of(old)
    if is_same and _owners(item) == _owners(old):
        return None
    return Replace(item=item, old=old)


def _owners(item: Object) -> list[str]:
    return sorted(owner["uid"] for owner in item["metadata"].get("ownerReferences") or ())


def step(
    api: Api,
    *,
    wanted: Sequence[Object],
    seen: Seen,
    refused: Iterable[Refusal] = (),
    may_delete: bool = False,
    known: Collection[str] = (),
    has_cloud_run: bool = False,
    told: Told | None = None,
) -> Done:
    """Do what is to be done now. Raises NotLeader, Unreachable: nothing more was done."""
    done = Done()
    told = told or Told()
    for each in plan(wanted, seen, may_delete=may_delete, known=known, has_cloud_run=has_cloud_run):
        try:
            take(api, each, done=done)
        except Answer as answer:
            done.failed.append((written.key_of(each.item if isinstance(each, Create | Replace) else each.old), answer))
        if isinstance(each, Keep):
            _tell_kept(api, each.old, told=told, done=done)
    for refusal in few(refused, told=told):
        _tell(api, refusal.ref, reason=refusal.event, message=message_of(refusal), told=told, done=done)
    return done


def take(api: Api, each: Step, *, done: Done) -> None:
    """Take one step, and count it. Raises Answer and whatever the API raises."""
    match each:
        case Create(item=item):
            _create(api, item, done=done)
        case Replace(item=item, old=old):
            api.replace(path_of(item), _successor(item, old))
            done.replaced += 1
        case Delete(old=old, doubtful=doubtful):
            metadata = old["metadata"]
            if not any(_is_there(api, old, owner, done=done) for owner in doubtful):
                # As it was seen, or not at all: a person may have changed it in the meantime.
                done.deleted += api.delete(
                    path_of(old), uid=metadata.get("uid", ""), version=metadata["resourceVersion"]
                )
        case Keep(old=old):
            done.kept.append(written.key_of(old))


def _create(api: Api, item: Object, *, done: Done) -> None:
    try:
        api.create(path_of(item).rpartition("/")[0], item)
        done.created += 1
    except Answer as answer:
        if not answer.is_conflict:
            raise
        # Another replica was quicker, or it is somebody's own: the watch had not said so.
        old = api.get(path_of(item))
        following = _against(item, whole(written.key_of(item), old)) if old is not None else None
        if following is not None:
            take(api, following, done=done)


def _successor(item: Object, old: Object) -> dict[str, Any]:
    """The object as it replaces the old one: what the server has chosen stays, and what others wrote on it."""
    metadata, before = item["metadata"], old["metadata"]
    made: dict[str, Any] = {
        **item,
        "metadata": {
            **metadata,
            "resourceVersion": before.get("resourceVersion", ""),
            "labels": {**(before.get("labels") or {}), **metadata.get("labels", {})},
            "annotations": {**(before.get("annotations") or {}), **metadata.get("annotations", {})},
        },
    }
    if item["kind"] == "Service":
        chosen = {key: old["spec"][key] for key in written.CHOSEN if key in old["spec"]}
        made["spec"] = {**chosen, **item["spec"]}
    return made


def _is_there(api: Api, item: Object, owner: Mapping[str, Any], *, done: Done) -> bool:
    """Tell whether an owner that no watch has shown is there all the same; several objects have one."""
    uid, plural = owner["uid"], PLURALS.get(owner["kind"])
    if plural is None:
        return True
    if uid not in done.owners:
        found = api.get(_path(owner["apiVersion"], plural, item["metadata"]["namespace"], owner["name"]))
        done.owners[uid] = found is not None and found["metadata"].get("uid") == uid
    return done.owners[uid]


def path_of(item: Object) -> str:
    """Where an object is."""
    metadata = item["metadata"]
    return _path(item["apiVersion"], PLURALS[item["kind"]], metadata["namespace"], metadata["name"])


def collection(kind: str, namespace: str) -> str:
    """Where objects of a kind are."""
    return _path(VERSIONS[kind], PLURALS[kind], namespace, "").rstrip("/")


def _path(version: str, plural: str, namespace: str, name: str) -> str:
    root = f"/apis/{version}" if "/" in version else f"/api/{version}"
    return f"{root}/namespaces/{namespace}/{plural}/{name}"


def few(refused: Iterable[Refusal], *, told: Told) -> Iterator[Refusal]:
    """Refusals that are to be told in this round: a namespace that is full of them keeps nobody else waiting."""
    counts: Counter[str] = Counter()
    for refusal in refused:
        if counts[refusal.ref.namespace] < MAX_EVENTS:
            counts[refusal.ref.namespace] += told.is_unknown(refusal.ref, refusal.event, message_of(refusal))
            yield refusal


def message_of(refusal: Refusal) -> str:
    """What a person is told: what is refused, why, what to do."""
    what = f"{refusal.what}: " if refusal.what else ""
    return f"{what}{refusal.reason}; {refusal.hint}"


def _tell_kept(api: Api, old: Object, *, told: Told, done: Done) -> None:
    metadata = old["metadata"]
    ref = Ref(
        version=old["apiVersion"],
        kind=old["kind"],
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata.get("uid", ""),
    )
    message = "changed by somebody: the gate leaves it as it is; delete it, and it is written anew while it is wanted"
    _tell(api, ref, reason=events.KEPT, message=message, told=told, done=done)


def _tell(api: Api, ref: Ref, *, reason: str, message: str, told: Told, done: Done) -> None:
    """Send an event, if it is new."""
    now = time.time()
    made = events.event(ref, reason=reason, message=message, now=now)
    if not told.is_new(made, now=now):
        return
    fields = {"source": str(ref), "reason": message}
    log.warning(SAID[reason], extra={"fields": fields})
    if not ref.uid:
        return  # no object of the cluster's that could have an event
    try:
        api.create(f"/api/v1/namespaces/{ref.namespace}/events", made)
    except Answer as answer:
        if not answer.is_conflict:
            told.forget(made)
            done.failed.append((("Event", ref.namespace, made["metadata"]["name"]), answer))
