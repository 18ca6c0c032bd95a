"""One resource of the Kubernetes API, watched: listed, then followed, and listed anew when that is the only way.

Tells what there is; decides nothing about it. A server that is gone, slow, silent or busy changes nothing of what was
told before: absence is told only by a list that succeeded, or by an event.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from hgate import errors
from hgate.kube import Kube
from hgate.kube_access import Access, access_of
from hgate.kube_answer import Answer, read_answer

Object = dict[str, Any]
STUBBORN = 6  # refusals in a row
LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Seconds. The server sends a bookmark every minute: what is silent for longer is gone."""

    watch: float = 290.0  # then the server ends a watch, and it is asked for again
    silence: float = 100.0
    first_pause: float = 0.5  # after a failure; twice that after the next
    longest_pause: float = 30.0


@dataclass(frozen=True, kw_only=True)
class Resource:
    """What is watched. ``keep`` tells which of its objects matter, ``slim`` what of them stays in memory."""

    kind: str
    path: str
    labels: str = ""
    name: str = ""  # this one name only, which RBAC can be narrowed to
    keep: Callable[[Object], bool] = lambda _: True
    slim: Callable[[Object], Object] = lambda item: item
    is_optional: bool = False  # a kind that this cluster may not know

    @property
    def query(self) -> str:
        """The path with its selectors."""
        from urllib.parse import urlencode

        selectors = {"labelSelector": self.labels, "fieldSelector": f"metadata.name={self.name}" if self.name else ""}
        return f"{self.path}?{urlencode({key: value for key, value in selectors.items() if value})}".rstrip("?")

    def slimmed(self, item: Object) -> Object:
        """Without what nobody here reads, and which is often the larger half."""
        metadata = dict(item.get("metadata") or {})
        metadata.pop("managedFields", None)
        annotations = metadata.get("annotations")
        if annotations and LAST_APPLIED in annotations:
            metadata["annotations"] = {key: value for key, value in annotations.items() if key != LAST_APPLIED}
        return self.slim({**item, "metadata": metadata})


@dataclass(frozen=True, kw_only=True)
class Listed:
    """All objects of a resource: those that were known and are not among them are gone."""

    resource: Resource
    items: tuple[Object, ...]


@dataclass(frozen=True, kw_only=True)
class Changed:
    """One object is new or other than before, or gone."""

    resource: Resource
    item: Object
    is_gone: bool = False


@dataclass(frozen=True, kw_only=True)
class Failed:
    """A list or watch has failed, and is tried again in ``pause`` seconds."""

    resource: Resource
    access: Access
    error: Answer | errors.Unreachable
    pause: float


@dataclass(frozen=True, kw_only=True)
class Followed:
    """The watch is open (again)."""

    resource: Resource


Event = Listed | Changed | Failed | Followed


class Watch:
    """A thread's work. ``tell`` is called in it, with each event."""

    def __init__(self, *, kube: Kube, resource: Resource, tell: Callable[[Event], None], timing: Timing) -> None:
        self.resource = resource
        self.heard = 0.0  # monotonic time of the last word from the server; 0 is never
        self._kube = kube
        self._tell = tell
        self._timing = timing
        self._version = ""  # where the watch goes on; "" is: list first
        self._failures = 0
        self._stopped = threading.Event()

    def start(self) -> None:
        """Watch in a thread of its own, which does not keep the process from ending."""
        threading.Thread(target=self.run, name=f"watch {self.resource.kind}", daemon=True).start()

    def stop(self) -> None:
        self._stopped.set()

    def run(self) -> None:
        """List and follow until stopped."""
        while not self._stopped.is_set():
            try:
                if not self._version:
                    self._list()
                self._follow()
            except Answer as answer:
                self._answered(answer)
            except errors.Unreachable as error:
                self._fail(error, access=access_of("GET", self._path() if self._version else self.resource.query))

    def _list(self) -> None:
        items, version = self._kube.list_at(self.resource.query)
        self._hear()
        kept = tuple(self.resource.slimmed(item) for item in items if self.resource.keep(item))
        self._tell(Listed(resource=self.resource, items=kept))
        self._version = version

    def _path(self) -> str:
        """Of the watch, from where it was."""
        seconds = int(self._timing.watch * random.uniform(0.8, 1.0)) or 1
        query = self.resource.query
        return (
            f"{query}{'&' if '?' in query else '?'}watch=1&allowWatchBookmarks=true"
            f"&resourceVersion={self._version}&timeoutSeconds={seconds}"
        )

    def _follow(self) -> None:
        path = self._path()
        access = access_of("GET", path)
        for line in self._kube.lines(path, silence=self._timing.silence, opened=self._opened):
            self._hear()
            self._take(line, access=access)
            if self._stopped.is_set():
                return

    def _opened(self) -> None:
        self._hear()
        self._tell(Followed(resource=self.resource))

    def _take(self, line: bytes, *, access: Access) -> None:
        if not line.strip():
            return
        try:
            event: Mapping[str, Any] = json.loads(line)
            kind, item = event["type"], event["object"]
        except (ValueError, KeyError, TypeError) as error:
            raise errors.Unreachable(f"{self._kube.url} cannot {access}: an event that is none") from error
        if kind == "ERROR":
            status = int(item.get("code") or 500)
            raise read_answer(access=access, status=status, headers={}, body=json.dumps(item).encode())
        self._version = item["metadata"]["resourceVersion"]
        # From here on it is a watch that works: what went wrong before does not make the next pause longer.
        self._failures = 0
        if kind != "BOOKMARK":
            is_gone = kind == "DELETED" or not self.resource.keep(item)
            self._tell(Changed(resource=self.resource, item=self.resource.slimmed(item), is_gone=is_gone))

    def _answered(self, answer: Answer) -> None:
        if answer.is_expired:
            # The usual end of a watch that was cut off for long. A server that says so again and again is not pressed.
            self._version = ""
            if not self._failures:
                self._failures = 1
                return
        elif self._failures >= STUBBORN:
            # A server that was set back to an older state never comes to where we were.
            self._version = ""
        if answer.status == 404 and self.resource.is_optional:
            # This cluster has no such kind: so there are no objects of it, until it has.
            self._hear()
            self._tell(Listed(resource=self.resource, items=()))
        self._fail(answer, access=answer.access, at_least=answer.retry_after)

    def _fail(self, error: Answer | errors.Unreachable, *, access: Access, at_least: float = 0.0) -> None:
        timing = self._timing
        pause = min(timing.first_pause * 2 ** min(self._failures, 16), timing.longest_pause)
        # Many watches lose one server at the same moment: they do not come back at the same one.
        pause = max(pause * random.uniform(0.5, 1.0), at_least)
        self._failures += 1
        self._tell(Failed(resource=self.resource, access=access, error=error, pause=pause))
        self._stopped.wait(pause)

    def _hear(self) -> None:
        self.heard = time.monotonic()
