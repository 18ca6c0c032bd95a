"""Which API server is ours, where no mesh is searched for: that of a kubeconfig, then of the pod's own cluster."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from krun_discover import incluster, kubeconfig
from krun_discover.errors import Misconfigured
from krun_discover.issued import Token
from krun_discover.kube_target import Target


def find(environ: Mapping[str, str], *, context: str = "", google: Callable[[], Token]) -> Target:
    """The one that is configured; ``google`` as for kubeconfig.load. Raises Misconfigured, also when there is none."""
    named = kubeconfig.load(environ, context=context, google=google)
    if isinstance(named, Target):
        return named
    own = incluster.load(environ)
    if isinstance(own, Target):
        return own
    raise Misconfigured(
        f"no cluster is configured: {named.reason}; {own.reason}",
        hint="set KUBECONFIG, as 'gcloud container clusters get-credentials' writes it, or run in a pod",
    )
