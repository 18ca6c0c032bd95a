"""Where this gate is in Google Cloud: project, cluster, network; from the environment, else the metadata server."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass

from hgate import errors
from hgate.metadata import Metadata

log = logging.getLogger(__name__)

# Each variable, and the path of the metadata server's that has it.
PATHS = {
    "PROJECT_ID": "project/project-id",
    "PROJECT_NUMBER": "project/numeric-project-id",
    "CLUSTER_NAME": "instance/attributes/cluster-name",
    "CLUSTER_LOCATION": "instance/attributes/cluster-location",
    "MESH_NETWORK": "instance/network-interfaces/0/network",
}


@dataclass(frozen=True, kw_only=True)
class Place:
    """Texts; empty is not known."""

    project_id: str = ""
    project_number: str = ""
    cluster: str = ""
    location: str = ""
    network: str = ""
    trust_domain: str = ""  # only when the environment says it: else the mesh does


def find(metadata: Metadata | None, *, environment: Mapping[str, str] | None = None) -> Place:
    """Ask for what the environment does not say; without a metadata server the rest is not known. Blocks."""
    given = os.environ if environment is None else environment
    found = {name: given.get(name, "") for name in PATHS}
    if metadata and given.get("NO_GCE_CHECK", "").lower() != "true":
        try:
            for name in [name for name, value in found.items() if not value]:
                found[name] = metadata.text(PATHS[name])
        except errors.Failure as error:
            log.warning("no metadata server", extra={"fields": {"reason": str(error)}})
    return Place(
        project_id=found["PROJECT_ID"],
        project_number=found["PROJECT_NUMBER"],
        cluster=found["CLUSTER_NAME"],
        location=found["CLUSTER_LOCATION"],
        # projects/NUMBER/networks/NAME
        network=found["MESH_NETWORK"].rpartition("/")[2],
        trust_domain=given.get("TRUST_DOMAIN", ""),
    )
