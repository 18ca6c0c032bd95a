"""The API server for whoever has something to ask of it: that of a kubeconfig, of the pod, or of the mesh's cluster."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from krun_discover import incluster, kubeconfig
from krun_discover.issued import Token
from krun_discover.kube import Cluster
from krun_discover.kube_target import Absent, Target
from krun_discover.record import Record
from krun_discover.web import Web


class Home(Record):
    """A cluster, and the workload's namespace in it."""

    cluster: Cluster
    namespace: str


def home(environ: Mapping[str, str], *, web: Web, context: str = "", namespace: str = "") -> Home:
    """Find both, with no more requests than that takes; ``namespace`` is one that is known already.

    What names a cluster by itself comes first: ``context`` and kubeconfig, then the pod's own. Where there is none, or
    ``MESH`` names another place, krun-discover's search decides. Raises a Failure, also when there is no cluster.
    """
    from krun_discover import mesh, metadata
    from krun_discover.assembly import Assembly, Request

    named = mesh.parse(environ.get("MESH", ""))
    client = metadata.Client(settings=metadata.settings(environ, product=metadata.product_name), deadline=web.deadline)
    request = Request(environ=environ, flags={}, mesh=named, context=context)
    assembly = Assembly(request=request, web=web, client=client)
    cluster = None
    if context or named.place is None:
        target = configured(environ, context=context, google=assembly.token)
        if isinstance(target, Target):
            cluster = Cluster(web=web, target=target)
            namespace = namespace or target.namespace
    cluster = cluster or assembly.cluster()
    return Home(cluster=cluster, namespace=namespace or assembly.resolution.value("WORKLOAD_NAMESPACE"))


def configured(environ: Mapping[str, str], *, context: str = "", google: Callable[[], Token]) -> Target | Absent:
    """The one of a kubeconfig, then the pod's own, or the reasons why there is neither. Raises what both do."""
    named = kubeconfig.load(environ, context=context, google=google)
    if isinstance(named, Target):
        return named
    own = incluster.load(environ)
    return own if isinstance(own, Target) else Absent(reason=f"{named.reason}; {own.reason}")
