"""The sources that the search feeds: the cluster itself, and its ``mesh-env``. Asking either begins the search."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from krun_discover import contract
from krun_discover.environment import is_port, is_roots
from krun_discover.mesh_env import NAME_OF_MAP
from krun_discover.resolve import Answer, Candidate, Known
from krun_discover.search import Search

CLUSTER = (
    "PROJECT_ID",
    "PROJECT_NUMBER",
    "CLUSTER_NAME",
    "CLUSTER_LOCATION",
    "TRUST_DOMAIN",
    "OUTBOUND_IP_RANGES_INCLUDE",
)
# What a cluster is looked for: all else comes along, or was not needed.
WORTH_A_SEARCH = ("XDS_ADDR", "CAROOT_ISTIOD")
# Where we are is not for the mesh to say: its own network is looked at by a rule.
NOT_DIRECTLY = ("MESH_NETWORK",)
NOT_SOUGHT = "no cluster is looked for"
NO_CLUSTER = "no cluster is known here"
NO_ANSWER = "no cluster tells, see below"


class ClusterFound:
    """Variables of the cluster that was found."""

    def __init__(self, *, search: Search) -> None:
        self._search = search

    def names(self) -> Iterable[str]:
        """None that cannot be listed beforehand."""
        return []

    def candidates(self, name: str, known: Known) -> Iterator[Candidate]:
        """What Google says of the cluster."""
        if name in CLUSTER:
            yield Candidate(source="cluster", ask=lambda: self._ask(name), free=lambda: self._search.is_done)

    def _ask(self, name: str) -> Answer:
        if not self._search.is_done:
            return Answer(note=NOT_SOUGHT)
        found = self._search.found()
        if found.way is None:
            return none(self._search)
        value = found.way.values.get(name, "")
        return Answer(value=value, note="" if value else f"{found.way.title} does not tell")


class MeshEnv:
    """Variables of the config map."""

    def __init__(self, *, search: Search) -> None:
        self._search = search

    def names(self) -> Iterable[str]:
        """The ports of the application, and roots, once the map is here."""
        if not self._search.is_done or (found := self._search.found().map) is None:
            return []
        return [name for name in found.values if is_port(name) or is_roots(name)]

    def candidates(self, name: str, known: Known) -> Iterator[Candidate]:
        """What stands in the map."""
        if (name in contract.MESH_ENV and name not in NOT_DIRECTLY) or is_port(name) or is_roots(name):
            yield Candidate(source=NAME_OF_MAP, ask=lambda: self._ask(name), free=lambda: self._search.is_done)

    def _ask(self, name: str) -> Answer:
        if not self._search.is_done and name not in WORTH_A_SEARCH:
            return Answer(note=NOT_SOUGHT)
        found = self._search.found()
        if found.map is None:
            return none(self._search) if found.way is None else Answer(note=f"none in {found.way.title}")
        value = found.map.values.get(name, "")
        return Answer(value=value, note=found.map_source if value else "not in it")


def none(search: Search) -> Answer:
    """What is to be said when there is no cluster to ask."""
    failure = search.found().failure
    return Answer(note=NO_ANSWER if failure else NO_CLUSTER)  # the failure itself is told once, by the search
