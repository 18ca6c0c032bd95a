"""The ways to the mesh's cluster, best first: for each cluster that may be it, the addresses of its API server.

Kubeconfig, or the cluster that we are in, names one; else Google's APIs are asked for those of the project. Where MESH
names a place, that is asked alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from krun_discover import choice, fleet, gke
from krun_discover.errors import Denied, Failure, Unreachable
from krun_discover.issued import Token
from krun_discover.kube_credentials import Google
from krun_discover.kube_target import Target, believed
from krun_discover.mesh import Place
from krun_discover.project import OVERRIDE as PROJECT_OVERRIDE
from krun_discover.project import Project
from krun_discover.project import get as get_project
from krun_discover.record import Record
from krun_discover.way import Way
from krun_discover.web import Web


class Asked(Record):
    """What is known before: everything may be empty."""

    project: str = ""  # id
    number: str = ""
    own: str = ""  # the project that we run in
    name: str = ""
    location: str = ""
    region: str = ""
    network: str = ""  # our own


class GoogleWays:
    """The clusters that Google's APIs know."""

    def __init__(self, *, web: Web, token: Callable[[], Token], environ: Mapping[str, str], asked: Asked) -> None:
        self._web = web
        self._token = token
        self._environ = environ
        self._asked = asked
        self._clusters = gke.Api(web=web, token=token, endpoint=environ.get(gke.OVERRIDE, ""))
        self._fleet = fleet.Api(web=web, token=token, endpoint=environ.get(fleet.OVERRIDE, ""))
        self._project: Project | None = None
        self.remarks: list[str] = []

    def ways(self, place: Place | None) -> Iterator[Way]:
        """All of them. Raises Denied, Unreachable when nobody could be asked."""
        if place is not None and place.kind == "membership":
            title = (
                f"//gkehub.googleapis.com/projects/{place.project}/locations/{place.location}/memberships/{place.name}"
            )
            if membership := fleet.parse(title):
                yield self._behind_gateway(membership, reason="MESH")
            return
        if place is not None and place.kind == "cluster":
            yield from self._one(place.project, place.location, place.name, reason="MESH")
            return
        project = place.project if place else self._asked.project
        if self._asked.name and self._asked.location and place is None:
            yield from self._one(project, self._asked.location, self._asked.name, reason="CLUSTER_NAME")
            return
        yield from self._chosen(project, is_any=place is not None)

    def _one(self, project: str, location: str, name: str, *, reason: str) -> Iterator[Way]:
        found = self._clusters.cluster(project, location, name, quota=self._quota(project))
        if found is None:
            raise Unreachable(
                f"GKE API: there is no cluster {project}/{location}/{name} ({reason})",
                hint=f"gcloud container clusters list --project={project}",
            )
        yield self._way(found, reason=reason)

    def _chosen(self, project: str, *, is_any: bool) -> Iterator[Way]:
        try:
            clusters = self._clusters.clusters(project, quota=self._quota(project))
        except Failure:
            yield from self._of_fleet(project)
            raise
        if self._clusters.missing:
            self.remarks.append(f"GKE's list is without {', '.join(self._clusters.missing)}")
        asked = self._asked
        wanted = choice.Wanted(name=asked.name, location=asked.location, region=asked.region, is_any=is_any)
        choices = choice.order(clusters, wanted=wanted)
        if not asked.name and len([one for one in clusters if one.is_alive]) > 1:
            labels = self._labels(project)
            marked = choice.Wanted(location=asked.location, region=asked.region, is_any=is_any, labels=labels)
            choices = choice.order(clusters, wanted=marked)
        for one in choices:
            yield self._way(one.cluster, reason=one.reason)
        if not choices:
            count = len(clusters)
            self.remarks.append(
                f"GKE: {project} has {count} clusters, none {'of that name' if asked.name else 'of a mesh'}"
            )
            yield from self._of_fleet(project)

    def _of_fleet(self, project: str) -> Iterator[Way]:
        """Clusters that are known to the fleet only: outside of GKE, or in a project that we may not look into."""
        try:
            found = self._fleet.memberships(project)
        except Failure as error:
            self.remarks.append(error.message)
            return
        for one in found:
            if self._asked.name in ("", one.name, one.cluster_name):
                yield self._behind_gateway(one, reason="in the fleet")

    def _way(self, one: gke.Cluster, *, reason: str) -> Way:
        values = {
            "PROJECT_ID": "" if one.project.isdecimal() else one.project,
            "PROJECT_NUMBER": _number(one),
            "CLUSTER_NAME": one.name,
            "CLUSTER_LOCATION": one.location,
            "TRUST_DOMAIN": one.trust_domain,
            "OUTBOUND_IP_RANGES_INCLUDE": f"{one.pods},{one.services}" if one.pods and one.services else "",
        }
        return Way(
            title=one.title,
            reason=reason,
            targets=tuple(self._targets(one)),
            values={name: value for name, value in values.items() if value},
            network=one.network,
        )

    def _targets(self, one: gke.Cluster) -> Iterator[Target]:
        """The API server's addresses: within the VPC first when we may be in it, Google's front last."""
        is_near = self._asked.network in ("", one.network)
        hosts = [one.private] if is_near else []
        hosts += [one.dns, one.public]
        for host in filter(None, hosts):
            yield self._target(f"https://{host}", one=one)
        membership = fleet.parse(one.membership)
        if membership is not None:
            yield from self._behind_gateway(membership, reason="").targets

    def _target(self, server: str, *, one: gke.Cluster) -> Target:
        tls, roots = believed(server, roots=one.roots, source="the cluster's own certificate authority, by the GKE API")
        return Target(
            server=server,
            source=one.title,
            tls=tls,
            roots=roots,
            credentials=Google(google=self._token),
            project=one.project,
            location=one.location,
            cluster=one.name,
        )

    def _behind_gateway(self, one: fleet.Membership, *, reason: str) -> Way:
        number = one.project if one.project.isdecimal() else self._number_of(one.project)
        targets = []
        if number:
            server = fleet.gateway(one, number=number, endpoint=self._environ.get(fleet.GATEWAY_OVERRIDE, ""))
            targets.append(Target(server=server, source=one.title, credentials=Google(google=self._token)))
        else:
            self.remarks.append(f"{one.title}: the number of its project is not known, set PROJECT_NUMBER")
        values = {
            "PROJECT_ID": one.cluster_project,
            "CLUSTER_NAME": one.cluster_name or one.name,
            "CLUSTER_LOCATION": one.cluster_location,
        }
        return Way(
            title=one.title,
            reason=reason,
            targets=tuple(targets),
            values={name: value for name, value in values.items() if value and not value.isdecimal()},
        )

    def _quota(self, project: str) -> str:
        """Whose quota it is: the project's, when that is not our own."""
        return "" if self._asked.own in ("", project) else project

    def _labels(self, project: str) -> Mapping[str, str]:
        return self._of_manager(project).labels

    def _number_of(self, project: str) -> str:
        if self._asked.number and project == self._asked.project:
            return self._asked.number
        return self._of_manager(project).number

    def _of_manager(self, project: str) -> Project:
        if self._project is None:
            endpoint = self._environ.get(PROJECT_OVERRIDE, "")
            try:
                self._project = get_project(project, web=self._web, token=self._token, endpoint=endpoint)
            except (Denied, Unreachable) as error:
                # Nobody needs it to have labels: their absence is no failure.
                self.remarks.append(error.message)
                self._project = Project()
        return self._project


def _number(one: gke.Cluster) -> str:
    """The project's number out of the label of a mesh: ``proj-NUMBER``."""
    number = one.labels.get(choice.MESH_LABEL, "").removeprefix("proj-")
    return number if number.isascii() and number.isdecimal() else ""
