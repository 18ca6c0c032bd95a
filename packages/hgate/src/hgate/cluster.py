"""What is known of the cluster: all watches together, and what follows from them for routes and for writing.

Lives in the loop of the control process; the watches are threads, and tell by its queue.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hgate import resources
from hgate.bugs import place_of
from hgate.kube import Kube
from hgate.kube_answer import Answer
from hgate.outage import Outages
from hgate.watch import Changed, Event, Failed, Followed, Listed, Resource, Timing, Watch

if TYPE_CHECKING:
    from hgate.registration import Registry

log = logging.getLogger(__name__)

Object = dict[str, Any]
Key = tuple[str, str, str]  # kind, namespace, name


@dataclass(slots=True)
class _Known:
    """One resource: its objects, and whether they were listed, or cannot be."""

    objects: dict[tuple[str, str], Object]
    is_listed: bool = False
    is_denied: bool = False


class Cluster:
    """``changed`` is called in the loop when what is declared may be other than before, ``disturbed`` when that is
    only so of what hgate itself has written: then nothing is to be judged anew, and much is spared.
    """

    def __init__(
        self,
        *,
        kube: Kube,
        system: str,
        registry: Registry,
        outages: Outages,
        changed: Callable[[], None],
        disturbed: Callable[[], None],
        timing: Timing | None = None,
    ) -> None:
        self._system = system
        self._registry = registry
        self._outages = outages
        self._changed = changed
        self._disturbed = disturbed
        self._loop = asyncio.get_running_loop()
        self._declarations = resources.declarations(system=system)
        settings = resources.settings(system=system)
        self._all = (*self._declarations, *resources.written(system=system), *settings)
        self._settings = frozenset(settings)
        self._known = {resource: _Known(objects={}) for resource in self._all}
        self._watches = [
            Watch(kube=kube, resource=each, tell=self._tell, timing=timing or Timing()) for each in self._all
        ]

    def start(self) -> None:
        for watch in self._watches:
            watch.start()

    def stop(self) -> None:
        for watch in self._watches:
            watch.stop()

    @property
    def is_settled(self) -> bool:
        """Whether all declarations were listed, or cannot be: what follows from them can be served."""
        return all(self._known[each].is_listed or self._known[each].is_denied for each in self._declarations)

    @property
    def is_whole(self) -> bool:
        """Whether every declaration is known: only then is what none wants to be deleted."""
        return all(self._known[each].is_listed for each in self._declarations)

    @property
    def kinds(self) -> frozenset[str]:
        """The kinds whose objects of ours are all known: what is not seen of them is not there."""
        missing = {each.kind for each, known in self._known.items() if not known.is_listed}
        return frozenset(each.kind for each in self._all) - missing

    def seen(self) -> dict[Key, Object]:
        """All objects that hgate has written."""
        return {
            (resource.kind, namespace, name): item
            for resource, known in self._known.items()
            for (namespace, name), item in known.objects.items()
            if resources.is_ours(item)
        }

    def config_map(self, name: str) -> Object | None:
        """One of the system namespace's, among those that are watched."""
        return next(iter(self._named("ConfigMap", name)), None)

    def is_known(self, name: str) -> bool:
        """Whether that config map has been looked for: that there is none is knowledge, too."""
        return any(known.is_listed for each, known in self._known.items() if each.name == name)

    def service(self, name: str) -> Object | None:
        """One of the gate's own services."""
        return next(iter(self._named("Service", name)), None)

    def ages(self, *, now: float) -> dict[str, float]:
        """By watch, seconds since its server was heard last; those that never were are not among them."""
        return {label(watch.resource): now - watch.heard for watch in self._watches if watch.heard}

    def learn(self, item: Object, is_gone: bool) -> None:
        """What a write has made of an object, before its watch tells. In any thread."""
        try:
            self._loop.call_soon_threadsafe(self._learn, item, is_gone)
        except RuntimeError:
            return

    def _learn(self, item: Object, is_gone: bool) -> None:
        namespace, name = _name(item)
        for resource, known in self._known.items():
            is_of_it = resource.kind == item.get("kind") and resource.name in ("", name)
            if not is_of_it or (resource.name and namespace != self._system and "/namespaces/" in resource.path):
                continue
            old = known.objects.get((namespace, name))
            if is_gone or old is None or int(_version(old) or 0) < int(_version(item) or 0):
                self._keep(resource, known, resource.slimmed(item), is_gone=is_gone)

    def _named(self, kind: str, name: str) -> Iterable[Object]:
        for resource, known in self._known.items():
            item = known.objects.get((self._system, name)) if resource.kind == kind else None
            if item is not None:
                yield item

    def _tell(self, event: Event) -> None:
        """Called by the watches' threads."""
        try:
            self._loop.call_soon_threadsafe(self._take, event)
        except RuntimeError:
            return  # the loop has ended, and with it all that would want to know

    def _take(self, event: Event) -> None:
        known = self._known[event.resource]
        who = label(event.resource)
        before = (known.is_listed, known.is_denied)
        match event:
            case Listed():
                self._list(event.resource, known, event.items)
                self._outages.worked(who)
            case Changed():
                self._change(event.resource, known, event.item, is_gone=event.is_gone)
            case Followed():
                self._outages.worked(who)
            case Failed():
                self._fail(known, event, who=who)
        if (known.is_listed, known.is_denied) != before:
            self._changed()

    def _fail(self, known: _Known, event: Failed, *, who: str) -> None:
        error = event.error
        if isinstance(error, Answer) and error.status == 404 and event.resource.is_optional:
            return  # this cluster has no such kind: the watch has told an empty list
        if isinstance(error, Answer) and error.is_denied:
            known.is_denied = True
            if event.resource.name == resources.POLICY and not known.is_listed:
                # There may be one that allows less than what holds without any.
                self._registry.policy_unknown(str(error))
        self._outages.failed(who, error, access=event.access)

    def _list(self, resource: Resource, known: _Known, items: tuple[Object, ...]) -> None:
        listed = {_name(item) for item in items}
        for gone in [name for name in known.objects if name not in listed]:
            self._change(resource, known, known.objects[gone], is_gone=True)
        for item in items:
            self._change(resource, known, item, is_gone=False)
        known.is_listed, known.is_denied = True, False
        if resource.name == resources.POLICY and (self._system, resources.POLICY) not in listed:
            self._registry.policy(None)

    def _change(self, resource: Resource, known: _Known, item: Object, *, is_gone: bool) -> None:
        old = known.objects.get(_name(item))
        if is_gone and old is None:
            return
        if not is_gone and old is not None and _content(resource, old) == _content(resource, item):
            known.objects[_name(item)] = item  # a new version that says the same
            return
        self._keep(resource, known, item, is_gone=is_gone)
        is_written = resources.is_ours(item) and (old is None or resources.is_ours(old))
        # Claims are ours, too, and others follow from them.
        if resource.name == resources.MESH_ENV or (is_written and resource.name != resources.CLAIMS):
            self._disturbed()
        else:
            self._changed()

    def _keep(self, resource: Resource, known: _Known, item: Object, *, is_gone: bool) -> None:
        name = _name(item)
        if is_gone:
            known.objects.pop(name, None)
        else:
            known.objects[name] = item
        if resource in self._settings:
            return
        try:
            self._declare(resource, name, item, is_gone=is_gone)
        except Exception as error:  # noqa: BLE001 - one object of somebody's must not keep all the others from us
            fields = {"source": f"{resource.kind} {'/'.join(name)}", "reason": place_of(error)}
            log.error("a bug in reading an object", extra={"fields": fields})
            self._registry.drop(resource.kind, *name)

    def _declare(self, resource: Resource, name: tuple[str, str], item: Object, *, is_gone: bool) -> None:
        if resource.name == resources.POLICY:
            self._registry.policy(None if is_gone else str((item.get("data") or {}).get("policy.yaml", "")))
        elif is_gone:
            self._registry.drop(resource.kind, *name)
        else:
            self._registry.put(resource.kind, item)


def label(resource: Resource) -> str:
    """How a watch is called in logs and metrics."""
    return f"{resource.kind}/{resource.name}" if resource.name else resource.kind


def _name(item: Object) -> tuple[str, str]:
    metadata = item["metadata"]
    return str(metadata.get("namespace", "")), str(metadata["name"])


def _version(item: Object) -> str:
    return str(item["metadata"].get("resourceVersion", ""))


def _content(resource: Resource, item: Object) -> Object:
    """What an object says: of its status only what load balancers tell of Services matters here."""
    metadata = {key: value for key, value in item["metadata"].items() if key not in ("resourceVersion", "generation")}
    # Lists leave the kind of their items away.
    left_out = ("metadata", "kind", "apiVersion", *(() if resource.kind == "Service" else ("status",)))
    return {"metadata": metadata, **{key: value for key, value in item.items() if key not in left_out}}
