"""The fleet's API: memberships of a project (gkehub.googleapis.com, v1)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from krun_testbed.google_api_messages import Answer, Asked, ok, refused
from krun_testbed.google_api_tokens import Accounts

MEMBERSHIPS = re.compile(r"/v1/projects/([^/]+)/locations/([^/]+)/memberships(?:/([^/]+))?")


@dataclass(kw_only=True)
class Fleet:
    """The memberships, by project id; each name has the project and the location that it was registered with."""

    accounts: Accounts
    numbers: Mapping[str, str]
    memberships: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    unreachable: list[str] = field(default_factory=list)  # locations that a list is without

    def __call__(self, asked: Asked) -> Answer:
        """Answer one request."""
        found = MEMBERSHIPS.fullmatch(asked.path)
        if found is None or asked.method != "GET":
            raise refused("NOT_FOUND", f"Method not found: {asked.method} {asked.path}")
        project, location, name = found[1], found[2], found[3]
        permission = f"gkehub.memberships.{'get' if name else 'list'}"
        self.accounts.caller(asked, permission=permission, resource=asked.path.removeprefix("/v1/"))
        rows = self.memberships.get(self.numbers.get(project, project), [])
        here = [row for row in rows if location in ("-", row["name"].split("/")[3])]
        if name:
            one = next((row for row in here if row["name"].endswith(f"/{name}")), None)
            if one is None:
                raise refused("NOT_FOUND", f"Resource '{asked.path.removeprefix('/v1/')}' was not found")
            return ok(one)
        whole = {"resources": here, "unreachable": self.unreachable}
        return ok({key: value for key, value in whole.items() if value})


def membership(
    name: str, *, project: str, location: str = "global", cluster: str = "", issuer: str = "", pool: str = ""
) -> dict[str, Any]:
    """A membership as the API describes it; ``cluster`` is projects/P/locations/L/clusters/C, empty outside of GKE."""
    link = {"gkeCluster": {"resourceLink": f"//container.googleapis.com/{cluster}"}} if cluster else {}
    authority = {"issuer": issuer, "workloadIdentityPool": pool, "identityProvider": issuer} if issuer else {}
    return {
        "name": f"projects/{project}/locations/{location}/memberships/{name}",
        "endpoint": {**link, "kubernetesMetadata": {"kubernetesApiServerVersion": "v1.37.2"}},
        "state": {"code": "READY"},
        "externalId": "3b4d6cbd-5fd9-4d1a-a5f8-2a4e3a9a7c11",
        **({"authority": authority} if authority else {}),
    }
