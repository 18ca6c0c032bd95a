"""The search for the mesh's cluster: tries one way after the other until one has ``mesh-env``, and tells the story.

It begins only when somebody needs what it finds, and it runs once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping

from krun_discover import lines, mesh_env
from krun_discover.errors import DeadlinePassed, Denied, Failure, Unreachable
from krun_discover.mesh_env import NAME_OF_MAP, SYSTEM, Accepted
from krun_discover.record import NONE, Record
from krun_discover.web import Web

TYPE_CHECKING = False
if TYPE_CHECKING:
    from krun_discover.kube import Cluster
    from krun_discover.way import Way

ROUNDS = 3  # a fresh instance may have no network for some seconds
PAUSE = 1.0  # seconds between them
TRY = 3.0  # seconds for an answer of one address


class Found(Record):
    """What came of it. ``values``: of the cluster itself; ``map``: its mesh-env; ``failure``: why there is none."""

    way: Way | None = None
    cluster: Cluster | None = None
    values: Mapping[str, str] = NONE
    map: Accepted | None = None
    map_source: str = ""
    failure: Failure | None = None


class Search:
    """``ways`` is called when the search begins; ``namespace`` gives the workload's."""

    def __init__(self, *, web: Web, ways: Callable[[], Iterable[Way]], namespace: Callable[[], str]) -> None:
        self._web = web
        self._hurried = web.hurried(limit=TRY)
        self._ways = ways
        self._namespace = namespace
        self._found: Found | None = None
        self.story: list[str] = []

    @property
    def is_done(self) -> bool:
        """Whether asking costs nothing."""
        return self._found is not None

    def found(self) -> Found:
        """The cluster and its mesh-env, or the reason why there is none. Raises DeadlinePassed."""
        if self._found is None:
            self._found = self._search()
        return self._found

    def _search(self) -> Found:
        failures: list[Failure] = []
        answered: Found | None = None
        ways, failure = _all(self._ways)
        for number in range(ROUNDS):
            silent = []
            for way in ways:
                found, troubles = self._try(way)
                failures += troubles
                if found is not None and found.map is not None:
                    return found
                answered = answered or found
                if found is None and any(isinstance(one, Unreachable) for one in troubles):
                    silent.append(way)
            if answered is not None or not silent or number + 1 == ROUNDS or not self._may_pause():
                break
            self.story.append(f"nobody answered, once more after {PAUSE:g} s")
            time.sleep(PAUSE)
            ways, failures = silent, []
        if failure is not None:
            self.story.append(failure.message)
        return self._without_map(answered, denied=_first([*failures], Denied), failure=_worst(failures, failure))

    def _without_map(self, answered: Found | None, *, denied: Failure | None, failure: Failure | None) -> Found:
        if answered is None or answered.way is None:
            return Found(failure=failure)
        lines.warning("the cluster has no mesh-env", source=answered.way.title, reason="--explain tells")
        return Found(way=answered.way, cluster=answered.cluster, values=answered.values, failure=denied)

    def _may_pause(self) -> bool:
        return time.monotonic() + 2 * PAUSE < self._web.deadline

    def _try(self, way: Way) -> tuple[Found | None, list[Failure]]:
        """What the cluster says by the first of its addresses that answers; and what went wrong before."""
        from krun_discover.kube import Cluster  # late: nothing may be looked for

        troubles: list[Failure] = []
        self.story.append(f"{way.title}" + (f" ({way.reason})" if way.reason else ""))
        for target in way.targets:
            cluster = Cluster(web=self._hurried, target=target)
            try:
                accepted, source = self._map(cluster)
            except DeadlinePassed:
                raise
            except Denied as error:
                self.story.append(f"  {target.server}: {error.message}")
                troubles.append(error)
                return Found(way=way, cluster=cluster, values=way.values), troubles
            except Failure as error:
                self.story.append(f"  {target.server}: {error.message}")
                troubles.append(error)
                continue
            outcome = source or f"no {NAME_OF_MAP} in {self._namespace()} or {SYSTEM}"
            self.story.append(f"  {target.server}: {outcome}")
            return Found(way=way, cluster=cluster, values=way.values, map=accepted, map_source=source), troubles
        return None, troubles

    def _map(self, cluster: Cluster) -> tuple[Accepted | None, str]:
        """The map of the workload's namespace, or of the whole mesh. Raises a Failure."""
        denied: Denied | None = None
        for namespace in dict.fromkeys([self._namespace(), SYSTEM]):
            try:
                data = cluster.get_config_map(namespace=namespace, name=NAME_OF_MAP)
            except Denied as error:
                denied = denied or error
                continue
            if data is not None:
                return mesh_env.accept(data), f"{NAME_OF_MAP} in {namespace}"
        if denied is not None:
            raise denied
        return None, ""


def _all(ways: Callable[[], Iterable[Way]]) -> tuple[list[Way], Failure | None]:
    """As many as there are until nobody can be asked for more."""
    found: list[Way] = []
    iterator: Iterator[Way] = iter(ways())
    while True:
        try:
            found.append(next(iterator))
        except StopIteration:
            return found, None
        except DeadlinePassed:
            raise
        except Failure as error:
            return found, error


def _first(failures: Iterable[Failure], kind: type[Failure]) -> Failure | None:
    return next((one for one in failures if isinstance(one, kind)), None)


def _worst(failures: list[Failure], failure: Failure | None) -> Failure | None:
    """What is said at the end: what a person can mend comes before what may pass."""
    return _first(failures, Denied) or next(iter(failures), None) or failure
