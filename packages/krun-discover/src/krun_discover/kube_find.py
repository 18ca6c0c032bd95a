"""The API server for whoever has something to ask of it: that of a kubeconfig, of the pod, or of the mesh's cluster."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from krun_discover import incluster, kubeconfig
from krun_discover.issued import Token
from krun_discover.kube import Cluster
from krun_discover.kube_target import Absent, Target
from krun_discover.record import Record
from krun_discover.web import Web

TYPE_CHECKING = False
if TYPE_CHECKING:
    from krun_discover.assembly import Assembly


class Home(Record):
    """A cluster, and the workload's namespace in it."""

    cluster: Cluster
    namespace: str


def home(environ: Mapping[str, str], *, web: Web, context: str = "", namespace: str = "") -> Home:
    """Find both, with no more requests than that takes; ``namespace`` is one that is known already.

    What names a cluster by itself comes first: ``context`` and kubeconfig, then the pod's own. Where there is none, or
    ``MESH`` names another place, krun-discover's search decides. Raises a Failure, also when there is no cluster.
    """
    assembled: list[Assembly] = []

    def search() -> Assembly:
        """Made once, and only when it is needed: with all that it asks it takes longer to load than what asks us."""
        if not assembled:
            assembled.append(_assembly(environ, web=web, context=context))
        return assembled[0]

    cluster = None
    if context or not _is_elsewhere(environ):
        target = configured(environ, context=context, google=lambda: search().token())
        if isinstance(target, Target):
            cluster = Cluster(web=web, target=target)
            namespace = namespace or target.namespace
    cluster = cluster or search().cluster()
    return Home(cluster=cluster, namespace=namespace or search().resolution.value("WORKLOAD_NAMESPACE"))


def _is_elsewhere(environ: Mapping[str, str]) -> bool:
    """Whether MESH names a place. Raises a Failure for what it cannot mean."""
    if not environ.get("MESH"):
        return False
    from krun_discover import mesh  # late: most name none

    return mesh.parse(environ["MESH"]).place is not None


def _assembly(environ: Mapping[str, str], *, web: Web, context: str) -> Assembly:
    from krun_discover import mesh, metadata
    from krun_discover.assembly import Assembly, Request

    client = metadata.Client(settings=metadata.settings(environ, product=metadata.product_name), deadline=web.deadline)
    request = Request(environ=environ, flags={}, mesh=mesh.parse(environ.get("MESH", "")), context=context)
    return Assembly(request=request, web=web, client=client)


def configured(environ: Mapping[str, str], *, context: str = "", google: Callable[[], Token]) -> Target | Absent:
    """The one of a kubeconfig, then the pod's own, or the reasons why there is neither. Raises what both do."""
    named = kubeconfig.load(environ, context=context, google=google)
    if isinstance(named, Target):
        return named
    own = incluster.load(environ)
    return own if isinstance(own, Target) else Absent(reason=f"{named.reason}; {own.reason}")
