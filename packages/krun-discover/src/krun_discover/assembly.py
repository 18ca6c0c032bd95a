"""All sources in their order, and what they share: the one place where they are put together.

Precedence: the environment; what MESH names; kubeconfig or the pod we are in; the metadata server; the cluster that was
found; its mesh-env; istiod's roots as its namespaces have them; rules and constants. The search for a cluster asks the
first four only, as the others are its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from krun_discover import metadata
from krun_discover.context import Context
from krun_discover.control_plane import ControlPlane, ProxyConfig
from krun_discover.defaults import Defaults
from krun_discover.environment import Environment
from krun_discover.errors import Failure, Misconfigured
from krun_discover.found import ClusterFound, MeshEnv
from krun_discover.issued import Token
from krun_discover.istio_roots import IstioRoots
from krun_discover.mesh import Mesh
from krun_discover.ranges import ClusterRanges
from krun_discover.record import Record
from krun_discover.resolve import Resolution, Source
from krun_discover.search import Search
from krun_discover.web import Web

TYPE_CHECKING = False
if TYPE_CHECKING:
    from krun_discover.google_tokens import GoogleTokens
    from krun_discover.kube import Cluster
    from krun_discover.kube_target import Absent, Target
    from krun_discover.way import Way

NO_GOOGLE = "no project is known here, so that Google's clusters are not asked for"
OUTSIDE = "-"  # the network of who is surely not in the mesh's: a machine without a metadata server


class Request(Record):
    """What the user has asked for: the environment, flags by variable, MESH as it was read, a kubeconfig's context."""

    environ: Mapping[str, str]
    flags: Mapping[str, str]
    mesh: Mesh
    context: str = ""


class Assembly:
    """One run's sources. Making it costs nothing: each is read or asked when it is needed."""

    def __init__(self, *, request: Request, web: Web, client: metadata.Client) -> None:
        self._request = request
        self._web = web
        self._client = client
        self.remarks: list[str] = []
        self.context = Context(load=self._load)
        environment = Environment(environ=request.environ, flags=request.flags)
        first: list[Source] = [environment, request.mesh, self.context, metadata.Metadata(client=client)]
        self._early = Resolution(sources=[*first, Defaults(environ=request.environ)])
        self._given = Resolution(sources=[environment, request.mesh])
        self.google: GoogleTokens | None = None  # once a token was needed
        self.search = Search(web=web, ways=self._ways, namespace=lambda: self._early.value("WORKLOAD_NAMESPACE"))
        proxy = ProxyConfig(text=request.environ.get("PROXY_CONFIG", ""))
        self.resolution = Resolution(
            sources=[
                environment,
                proxy,
                *first[1:],
                ClusterFound(search=self.search),
                MeshEnv(search=self.search),
                IstioRoots(search=self.search, namespace=lambda: self._early.value("WORKLOAD_NAMESPACE")),
                ClusterRanges(search=self.search),
                ControlPlane(environ=request.environ, search=self.search),
                metadata.OwnPlace(client=client),
                Defaults(environ=request.environ),
            ]
        )

    def failure(self) -> Failure | None:
        """Why the search for a cluster failed, if it was made and did."""
        return self.search.found().failure if self.search.is_done else None

    def cluster(self) -> Cluster:
        """The cluster, for whoever has more to ask of it: tokens, secrets, permissions.

        Raises Misconfigured when none is known here, and whatever made the search fail.
        """
        from krun_discover.kube import Cluster
        from krun_discover.kube_target import Absent

        target = self.context.target()
        if not isinstance(target, Absent):
            return Cluster(web=self._web, target=target)
        found = self.search.found()
        if found.cluster is not None:
            return Cluster(web=self._web, target=found.cluster.target)
        if found.failure is not None:
            raise found.failure
        raise Misconfigured(
            f"no cluster is known here: {'; '.join(self.remarks)}",
            hint="set KUBECONFIG, or PROJECT_ID with CLUSTER_NAME and CLUSTER_LOCATION, or MESH",
        )

    def _load(self) -> Target | Absent:
        request = self._request
        from krun_discover import incluster, kubeconfig  # late: all may be known
        from krun_discover.kube_target import Absent, Target

        if reason := self._elsewhere():
            return Absent(reason=reason)
        target = kubeconfig.load(request.environ, context=request.context, google=self.token)
        if isinstance(target, Target):
            return target
        pod = incluster.load(request.environ)
        return pod if isinstance(pod, Target) else Absent(reason=f"{target.reason}; {pod.reason}")

    def _elsewhere(self) -> str:
        """Why no kubeconfig counts, if none does: the mesh has been named by other means."""
        mesh = self._request.mesh
        if self._request.context:
            return ""
        if mesh.place is not None or mesh.label.startswith(("MESH=static:", "MESH=td:")):
            return f"not read: {mesh.label} names the mesh"
        if self._given.value("XDS_ADDR") == "-" or (
            self._given.value("KRUN_GATEWAY") and not self._given.value("XDS_ADDR")
        ):
            return "not read: there is no control plane"
        return ""

    def token(self) -> Token:
        """Google's access token. Raises Misconfigured when there are no credentials, or another Failure."""
        if self.google is None:
            from krun_discover.google_tokens import GoogleTokens  # late: most starts need none
            from krun_discover.token_cache import TokenCache, folder

            environ = self._request.environ
            cache = TokenCache(folder=folder(environ))
            self.google = GoogleTokens(web=self._web, environ=environ, metadata=self._client, cache=cache)
        return self.google.access()

    def _ways(self) -> Iterable[Way]:
        from krun_discover.kube_target import Absent
        from krun_discover.way import Way

        target = self.context.target()
        if not isinstance(target, Absent):
            yield Way(title=target.source, reason="", targets=(target,))
            return
        self.remarks.append(target.reason)
        yield from self._of_google()

    def _has_credentials(self) -> bool:
        """Whether there is anything to ask Google with; what is there and fails is a failure. Raises a Failure."""
        try:
            self.token()
        except Misconfigured as error:
            if self.google is None or any(one.outcome.startswith("failed") for one in self.google.tried):
                raise
            self.remarks.append(error.message)
            return False
        return True

    def _of_google(self) -> Iterator[Way]:
        from krun_discover.ways import Asked, GoogleWays

        place = self._request.mesh.place
        project = self._early.value("PROJECT_ID") or self._early.value("PROJECT_NUMBER")
        if not project and place is None:
            self.remarks.append(NO_GOOGLE)
            return
        if place is None and not self._has_credentials():
            return
        asked = Asked(
            project=project,
            number=self._given.value("PROJECT_NUMBER") or self._own("project/numeric-project-id"),
            own=self._own("project/project-id"),
            name=self._given.value("CLUSTER_NAME"),
            location=self._given.value("CLUSTER_LOCATION"),
            region=self._region(),
            network=self._network(),
        )
        google = GoogleWays(web=self._web, token=self.token, environ=self._request.environ, asked=asked)
        try:
            yield from google.ways(place)
        finally:
            self.remarks += google.remarks

    def _own(self, path: str) -> str:
        """What the metadata server says, as far as it is there."""
        return "" if self._client.settings.off or self._client.trouble else self._client.ask(path).value

    def _region(self) -> str:
        region = metadata.last_segment(self._own("instance/region"))
        return region or metadata.region_of_zone(self._own("instance/zone"))

    def _network(self) -> str:
        """The network that decides which address of an API server is tried first; empty when it is not known."""
        if given := self._given.value("MESH_NETWORK"):
            return given
        if self._client.settings.off or self._client.trouble:
            return OUTSIDE
        if self._client.settings.serverless:
            return ""
        return metadata.last_segment(self._own("instance/network-interfaces/0/network"))
