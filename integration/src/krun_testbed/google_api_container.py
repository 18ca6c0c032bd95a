"""GKE's API: clusters of a project (container.googleapis.com, v1)."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from krun_testbed.google_api_fields import parse, select
from krun_testbed.google_api_messages import Answer, Asked, ok, refused
from krun_testbed.google_api_tokens import Accounts

CLUSTERS = re.compile(r"/v1/projects/([^/]+)/locations/([^/]+)/clusters(?:/([^/]+))?")
SCOPES = tuple(f"https://www.googleapis.com/auth/{name}" for name in ("container", "container.read-only"))
# Of the documented fields, those that tell where a cluster is and whose: a mask with any other is refused.
IP = dict.fromkeys(("enabled", "enablePublicEndpoint", "privateEndpoint", "publicEndpoint"))
DNS = dict.fromkeys(("endpoint", "allowExternalTraffic", "enableK8sTokensViaDns", "enableK8sCertsViaDns"))
PRIVATE = ("enablePrivateNodes", "enablePrivateEndpoint", "privateEndpoint", "publicEndpoint")
PLAIN = (
    "name description location locations zone selfLink id status statusMessage endpoint network subnetwork "
    "resourceLabels clusterIpv4Cidr servicesIpv4Cidr networkConfig autopilot currentMasterVersion createTime "
    "masterAuthorizedNetworksConfig meshCertificates etag"
)
SCHEMA: dict[str, Any] = {
    **dict.fromkeys(PLAIN.split()),
    "masterAuth": {"clusterCaCertificate": None},
    "privateClusterConfig": dict.fromkeys(PRIVATE),
    "controlPlaneEndpointsConfig": {"ipEndpointsConfig": IP, "dnsEndpointConfig": DNS},
    "workloadIdentityConfig": {"workloadPool": None},
    "fleet": {"project": None, "membership": None, "preRegistered": None, "membershipType": None},
}


@dataclass(kw_only=True)
class Container:
    """The clusters, by project id. ``numbers`` lets a project's number stand for its id."""

    accounts: Accounts
    numbers: Mapping[str, str]
    clusters: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    missing_zones: list[str] = field(default_factory=list)

    def __call__(self, asked: Asked) -> Answer:
        """Answer one request."""
        found = CLUSTERS.fullmatch(asked.path)
        if found is None or asked.method != "GET":
            raise refused("NOT_FOUND", f"Method not found: {asked.method} {asked.path}")
        project, location, name = found[1], found[2], found[3]
        verb = "get" if name else "list"
        resource = asked.path.removeprefix("/v1/").removesuffix("/clusters")
        permission = f"container.clusters.{verb}"
        self.accounts.caller(asked, permission=permission, resource=resource, scopes=SCOPES)
        rows = self.clusters.get(self.numbers.get(project, project))
        if rows is None:
            raise refused("NOT_FOUND", f"Not found: projects/{project}.")
        here = [row for row in rows if location in ("-", row["location"])]
        mask = asked.query.get("fields", "")
        if name:
            one = next((row for row in here if row["name"] == name), None)
            if one is None:
                raise refused("NOT_FOUND", f"Not found: {resource}.")
            return ok(select(one, parse(mask), schema=SCHEMA) if mask else one)
        # As everywhere in Google's JSON, what is empty is not there at all.
        whole = {"clusters": here, "missingZones": self.missing_zones}
        listed = {key: value for key, value in whole.items() if value}
        schema = {"clusters": SCHEMA, "missingZones": None}
        return ok(select(listed, parse(mask), schema=schema) if mask else listed)


def cluster(
    name: str,
    *,
    project: str,
    location: str = "us-central1",
    root: bytes,
    public: str = "",
    private: str = "",
    dns: str = "",
    dns_is_open: bool = True,
    k8s_tokens_by_dns: bool = False,
    **more: Any,
) -> dict[str, Any]:
    """A cluster as the API describes it. Without addresses only its DNS endpoint leads to it."""
    ip: dict[str, Any] = {"enabled": bool(public or private), "enablePublicEndpoint": bool(public)}
    ip |= {key: value for key, value in (("publicEndpoint", public), ("privateEndpoint", private)) if value}
    control: dict[str, Any] = {"ipEndpointsConfig": ip}
    if dns:
        open_to = {"allowExternalTraffic": True} if dns_is_open else {}
        tokens = {"enableK8sTokensViaDns": True} if k8s_tokens_by_dns else {}
        control["dnsEndpointConfig"] = {"endpoint": dns, **open_to, **tokens}
    base = f"https://container.googleapis.com/v1/projects/{project}"
    return {
        "name": name,
        "location": location,
        "zone": location,
        "selfLink": f"{base}/locations/{location}/clusters/{name}",
        "status": "RUNNING",
        "endpoint": public or private or dns,
        "network": "default",
        "subnetwork": "default",
        "clusterIpv4Cidr": "10.4.0.0/14",
        "servicesIpv4Cidr": "10.96.0.0/16",
        "masterAuth": {"clusterCaCertificate": base64.b64encode(root).decode()},
        "privateClusterConfig": {key: ip[key] for key in ("privateEndpoint", "publicEndpoint") if key in ip},
        "controlPlaneEndpointsConfig": control,
        "workloadIdentityConfig": {"workloadPool": f"{project}.svc.id.goog"},
        **more,
    }
