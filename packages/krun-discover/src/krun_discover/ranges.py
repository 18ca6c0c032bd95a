"""Address ranges for interception out of the cluster itself: its ServiceCIDRs and its nodes' pods.

Asked when neither GKE nor mesh-env has told them, and only of a cluster that was found anyhow: two requests, which the
role of a workload need not permit.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from krun_discover.errors import DeadlinePassed, Failure
from krun_discover.resolve import Answer, Candidate, Known
from krun_discover.search import Search

GUESS = "10.0.0.0/8"  # for the part that is not known, as krun-iptables takes for both


class ClusterRanges:
    """The source of OUTBOUND_IP_RANGES_INCLUDE that costs requests."""

    def __init__(self, *, search: Search) -> None:
        self._search = search
        self._answer: Answer | None = None

    def names(self) -> Iterable[str]:
        """None."""
        return []

    def candidates(self, name: str, known: Known) -> Iterator[Candidate]:
        """The API server's own ranges; free where no cluster was found, as there is nobody to ask."""
        if name == "OUTBOUND_IP_RANGES_INCLUDE" and self._search.is_done and self._search.found().cluster:
            yield Candidate(source="cluster: ranges", ask=self._ask, free=lambda: self._answer is not None)

    def _ask(self) -> Answer:
        if self._answer is None:
            self._answer = self._look()
        return self._answer

    def _look(self) -> Answer:
        from krun_discover.kube_ranges import ranges

        cluster = self._search.found().cluster
        assert cluster is not None  # noqa: S101 - else there is no candidate
        try:
            found = ranges(cluster)
        except DeadlinePassed:
            raise
        except Failure as error:
            return Answer(note=error.message)
        pods, services = only_old(found.pods), only_old(found.services)
        note = "; ".join(found.remarks)
        if not pods and not services:
            return Answer(note=note or "it tells none")
        return Answer(value=",".join(dict.fromkeys([*(pods or [GUESS]), *(services or [GUESS])])), note=note)


def only_old(ranges: Iterable[str]) -> list[str]:
    """The IPv4 ones: interception knows no others yet."""
    return [one for one in ranges if ":" not in one]
