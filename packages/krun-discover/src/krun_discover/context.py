"""What a kubeconfig, or the pod that we are in, says of the cluster without being asked over the network."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from krun_discover.resolve import Answer, Candidate, Known

TYPE_CHECKING = False
if TYPE_CHECKING:
    from krun_discover.kube_target import Absent, Target

VARIABLES = ("PROJECT_ID", "CLUSTER_NAME", "CLUSTER_LOCATION", "WORKLOAD_NAMESPACE")


class Context:
    """The target; ``load`` reads it, at most once, when somebody asks."""

    def __init__(self, *, load: Callable[[], Target | Absent]) -> None:
        self._load = load
        self._loaded: Target | Absent | None = None

    def target(self) -> Target | Absent:
        """The API server, or the reason why none is named here. Raises a Failure for what cannot be read."""
        if self._loaded is None:
            self._loaded = self._load()
        return self._loaded

    def names(self) -> Iterable[str]:
        """None."""
        return []

    def candidates(self, name: str, known: Known) -> Iterator[Candidate]:
        """The parts of its name, and the namespace."""
        if name in VARIABLES:
            yield Candidate(source="kubeconfig", ask=lambda: self._ask(name), free=lambda: self._loaded is not None)

    def _ask(self, name: str) -> Answer:
        from krun_discover.kube_target import Absent

        target = self.target()
        if isinstance(target, Absent):
            return Answer(note=target.reason)
        values = {
            "PROJECT_ID": target.project,
            "CLUSTER_NAME": target.cluster,
            "CLUSTER_LOCATION": target.location,
            "WORKLOAD_NAMESPACE": target.namespace,
        }
        return Answer(value=values[name], note=target.source if values[name] else f"{target.source}: does not tell")
