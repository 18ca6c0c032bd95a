"""Clusters of GKE: what its API says of one, and the requests for them (container.googleapis.com, v1). No decisions."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping

from krun_discover.errors import Denied, Unreachable
from krun_discover.issued import Token
from krun_discover.record import NONE, Record
from krun_discover.web import Call, NoReply, Reply, Web

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

ENDPOINT = "https://container.googleapis.com/"
OVERRIDE = "CLOUDSDK_API_ENDPOINT_OVERRIDES_CONTAINER"  # gcloud's own variable
ALIVE = frozenset({"RUNNING", "RECONCILING", "DEGRADED"})
FIELDS = (
    "name,location,status,endpoint,network,resourceLabels,masterAuth/clusterCaCertificate,clusterIpv4Cidr,"
    "servicesIpv4Cidr,privateClusterConfig(privateEndpoint,publicEndpoint),controlPlaneEndpointsConfig,"
    "workloadIdentityConfig,fleet/membership"
)


class Cluster(Record):
    """One cluster, as far as it matters to a workload outside of it."""

    project: str
    location: str
    name: str
    status: str = "RUNNING"
    labels: Mapping[str, str] = NONE
    roots: str = ""  # PEM, of its own certificate authority: not for names of Google
    private: str = ""  # hosts of its API server, each empty when there is none
    public: str = ""
    dns: str = ""
    network: str = ""
    trust_domain: str = ""
    pods: str = ""  # ranges
    services: str = ""
    membership: str = ""  # //gkehub.googleapis.com/projects/…

    @property
    def title(self) -> str:
        return f"gke {self.project}/{self.location}/{self.name}"

    @property
    def is_alive(self) -> bool:
        return self.status in ALIVE


def read(found: Mapping[str, Any], *, project: str) -> Cluster:
    """A cluster out of the API's JSON; what has another form than documented is left out."""
    private = _at(found, "privateClusterConfig")
    control = _at(found, "controlPlaneEndpointsConfig")
    ip, dns = _at(control, "ipEndpointsConfig"), _at(control, "dnsEndpointConfig")
    endpoint = _text(found, "endpoint")
    is_name = endpoint.endswith(".gke.goog")  # where IP endpoints are off, the name stands in their place
    is_private = endpoint in (_text(ip, "privateEndpoint"), _text(private, "privateEndpoint"))
    labels = found.get("resourceLabels")
    return Cluster(
        project=project,
        location=_text(found, "location"),
        name=_text(found, "name"),
        status=_text(found, "status"),
        labels={str(key): str(value) for key, value in labels.items()} if isinstance(labels, dict) else {},
        roots=_pem(_text(_at(found, "masterAuth"), "clusterCaCertificate")),
        private=_text(ip, "privateEndpoint") or _text(private, "privateEndpoint"),
        public=_text(ip, "publicEndpoint")
        or _text(private, "publicEndpoint")
        or ("" if is_name or is_private else endpoint),
        dns=_text(dns, "endpoint") if dns.get("allowExternalTraffic") is True else endpoint if is_name else "",
        network=_text(found, "network").rpartition("/")[2],
        trust_domain=_text(_at(found, "workloadIdentityConfig"), "workloadPool"),
        pods=_text(found, "clusterIpv4Cidr"),
        services=_text(found, "servicesIpv4Cidr"),
        membership=_text(_at(found, "fleet"), "membership"),
    )


def _at(found: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = found.get(name)
    return value if isinstance(value, dict) else {}


def _text(found: Mapping[str, Any], name: str) -> str:
    value = found.get(name)
    return value if isinstance(value, str) and value.isprintable() else ""


def _pem(text: str) -> str:
    try:
        return base64.b64decode(text, validate=True).decode("ascii")
    except (binascii.Error, ValueError):
        return ""


class Api:
    """The API; ``token`` gives Google's access token when one is needed."""

    def __init__(self, *, web: Web, token: Callable[[], Token], endpoint: str) -> None:
        self._web = web
        self._token = token
        self._endpoint = endpoint or ENDPOINT
        self.missing: tuple[str, ...] = ()  # zones that the last list is without

    def clusters(self, project: str, *, quota: str = "") -> list[Cluster]:
        """All clusters of the project. Raises Denied, Unreachable."""
        path = f"v1/projects/{project}/locations/-/clusters"
        found = self._get(path, fields=f"clusters({FIELDS}),missingZones", what=f"clusters of {project}", quota=quota)
        missing = found.get("missingZones")
        self.missing = tuple(str(zone) for zone in missing) if isinstance(missing, list) else ()
        clusters = found.get("clusters")
        rows = [row for row in clusters if isinstance(row, dict)] if isinstance(clusters, list) else []
        return [read(row, project=project) for row in rows]

    def cluster(self, project: str, location: str, name: str, *, quota: str = "") -> Cluster | None:
        """One cluster, None when there is none of that name. Raises Denied, Unreachable."""
        path = f"v1/projects/{project}/locations/{location}/clusters/{name}"
        found = self._get(path, fields=FIELDS, what=f"cluster {project}/{location}/{name}", quota=quota)
        return read(found, project=project) if found else None

    def _get(self, path: str, *, fields: str, what: str, quota: str) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {self._token().value}"}
        if quota:
            headers["X-Goog-User-Project"] = quota
        try:
            reply = self._web.ask(Call(url=f"{self._endpoint.rstrip('/')}/{path}?fields={fields}", headers=headers))
            return judge(reply, what=f"GKE API, {what}", project=path.split("/")[2])
        except NoReply as error:
            raise Unreachable(
                f"GKE API {self._endpoint}, {what}: {error}",
                hint="set CLUSTER_NAME, CLUSTER_LOCATION and XDS_ADDR to start without it; --explain tells more",
            ) from error


def judge(reply: Reply, *, what: str, project: str) -> dict[str, Any]:
    """The object in a Google API's answer, empty for 404. Raises Denied, Unreachable, NoReply."""
    if reply.status == 404:
        return {}
    if reply.status in (401, 403):
        raise Denied(f"{what}: {_message(reply)}", hint=_grant(what, project=project))
    if reply.status != 200:
        raise Unreachable(f"{what}: {_message(reply)}", hint="--explain tells what was asked")
    found = reply.json()
    if not isinstance(found, dict):
        raise NoReply("the answer is not a JSON object", kind="malformed")
    return found


def _message(reply: Reply) -> str:
    """What Google's error says (google.rpc.Status): one line of it."""
    try:
        error = reply.json()["error"]
        message = error["message"] if isinstance(error, dict) else error
    except (NoReply, KeyError, TypeError):
        message = ""
    text = " ".join(str(message).split())[:300]
    return f"HTTP {reply.status}" + (f": {text}" if text else "")


def _grant(what: str, *, project: str) -> str:
    role = {"GKE": "roles/container.clusterViewer", "fle": "roles/gkehub.viewer", "res": "roles/browser"}[what[:3]]
    command = f"gcloud projects add-iam-policy-binding {project} --role={role} --member=serviceAccount:EMAIL"
    return f"{command}; or XDS_ADDR=- where there is to be no mesh"
