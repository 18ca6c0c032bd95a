"""The root certificates of istiod as every namespace of its cluster has them: the source after mesh-env."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from krun_discover import found, lines, mesh_env
from krun_discover.errors import DeadlinePassed, Denied, Failure
from krun_discover.resolve import Answer, Candidate, Known
from krun_discover.search import Search

VARIABLE = "CAROOT_ISTIOD"
NAME_OF_MAP, KEY = "istio-ca-root-cert", "root-cert.pem"  # Istio's own names: Pods have it mounted


class IstioRoots:
    """``CAROOT_ISTIOD`` when nobody has said it. Istiod keeps the map of the workload's own namespace up to date."""

    def __init__(self, *, search: Search, namespace: Callable[[], str]) -> None:
        self._search = search
        self._namespace = namespace

    def names(self) -> Iterable[str]:
        """None."""
        return []

    def candidates(self, name: str, known: Known) -> Iterator[Candidate]:
        """One more request, for who needs these roots."""
        if name == VARIABLE:
            yield Candidate(source=NAME_OF_MAP, ask=self._ask, free=lambda: False)

    def _ask(self) -> Answer:
        cluster, namespace = self._search.found().cluster, self._namespace()
        if cluster is None:
            return found.none(self._search)
        where = f"{NAME_OF_MAP} in {namespace}"
        try:
            data = cluster.get_config_map(namespace=namespace, name=NAME_OF_MAP)
        except DeadlinePassed:
            raise
        except Failure as error:
            if isinstance(error, Denied):
                lines.warning("the roots of istiod cannot be read", source=where, reason="--explain tells")
            return Answer(note=error.message, failed=True)
        if data is None:
            return Answer(note=f"there is no {where}")
        value = data.get(KEY, "").strip()
        objection = mesh_env.objection_to_roots(value) if value else f"no {KEY} in it"
        return Answer(note=f"{where}: {objection}") if objection else Answer(value=value, note=where)
