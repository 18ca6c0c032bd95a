"""Fleet and Connect gateway: a way to a cluster's API server by Google's front, wherever the cluster is."""

from __future__ import annotations

import re
from collections.abc import Callable

from krun_discover.errors import Unreachable
from krun_discover.gke import judge
from krun_discover.issued import Token
from krun_discover.record import Record
from krun_discover.web import Call, NoReply, Web

ENDPOINT = "https://gkehub.googleapis.com/"
OVERRIDE = "CLOUDSDK_API_ENDPOINT_OVERRIDES_GKEHUB"  # gcloud's own variables
GATEWAY_OVERRIDE = "CLOUDSDK_API_ENDPOINT_OVERRIDES_CONNECTGATEWAY"
GLOBAL = "global"
_NAME = re.compile(r"(?:(?:https:)?//gkehub\.googleapis\.com/)?projects/([^/]+)/locations/([^/]+)/memberships/([^/]+)")
_CLUSTER = re.compile(r"//container\.googleapis\.com/projects/([^/]+)/(?:locations|zones)/([^/]+)/clusters/([^/]+)")


class Membership(Record):
    """A cluster in a fleet; ``project`` is an id or a number, the cluster's own parts are empty outside of GKE."""

    project: str
    location: str
    name: str
    is_gke: bool = True
    cluster_project: str = ""
    cluster_location: str = ""
    cluster_name: str = ""

    @property
    def title(self) -> str:
        return f"fleet {self.project}/{self.location}/{self.name}"


def parse(name: str) -> Membership | None:
    """Read ``//gkehub.googleapis.com/projects/P/locations/L/memberships/M``, with or without the host."""
    found = _NAME.fullmatch(name)
    return Membership(project=found[1], location=found[2], name=found[3]) if found else None


def gateway(membership: Membership, *, number: str, endpoint: str = "") -> str:
    """The URL of the cluster's API behind the Connect gateway; ``number`` is the fleet project's."""
    host = "connectgateway.googleapis.com"
    if membership.location != GLOBAL:
        host = f"{membership.location}-{host}"
    base = endpoint.rstrip("/") or f"https://{host}"
    kind = "gkeMemberships" if membership.is_gke else "memberships"
    return f"{base}/v1/projects/{number}/locations/{membership.location}/{kind}/{membership.name}"


class Api:
    """The fleet's API."""

    def __init__(self, *, web: Web, token: Callable[[], Token], endpoint: str) -> None:
        self._web = web
        self._token = token
        self._endpoint = endpoint or ENDPOINT

    def memberships(self, project: str) -> list[Membership]:
        """All memberships of the project's fleet. Raises Denied, Unreachable."""
        headers = {"Authorization": f"Bearer {self._token().value}"}
        url = f"{self._endpoint.rstrip('/')}/v1/projects/{project}/locations/-/memberships"
        try:
            found = judge(
                self._web.ask(Call(url=url, headers=headers)),
                what=f"fleet API, memberships of {project}",
                project=project,
            )
        except NoReply as error:
            raise Unreachable(
                f"fleet API {self._endpoint}, memberships of {project}: {error}",
                hint="set CLUSTER_NAME and CLUSTER_LOCATION, or XDS_ADDR, to start without it",
            ) from error
        rows = found.get("resources")
        read = [_read(row) for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
        return [one for one in read if one]


def _read(row: dict[str, object]) -> Membership | None:
    one = parse(str(row.get("name", "")))
    if one is None:
        return None
    endpoint = row.get("endpoint")
    gke = endpoint.get("gkeCluster") if isinstance(endpoint, dict) else None
    link = _CLUSTER.fullmatch(str(gke.get("resourceLink", ""))) if isinstance(gke, dict) else None
    return Membership(
        project=one.project,
        location=one.location,
        name=one.name,
        is_gke=link is not None,
        cluster_project=link[1] if link else "",
        cluster_location=link[2] if link else "",
        cluster_name=link[3] if link else "",
    )
