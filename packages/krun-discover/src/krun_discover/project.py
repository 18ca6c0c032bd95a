"""A Google Cloud project as the resource manager knows it: number and labels (cloudresourcemanager, v3)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from krun_discover.errors import Unreachable
from krun_discover.gke import judge
from krun_discover.issued import Token
from krun_discover.record import NONE, Record
from krun_discover.web import Call, NoReply, Web

ENDPOINT = "https://cloudresourcemanager.googleapis.com/"
OVERRIDE = "CLOUDSDK_API_ENDPOINT_OVERRIDES_CLOUDRESOURCEMANAGER"  # gcloud's own variable


class Project(Record):
    """The project; empty where it is not known."""

    id: str = ""
    number: str = ""
    labels: Mapping[str, str] = NONE


def read(found: Mapping[str, object]) -> Project:
    """A project out of the API's JSON."""
    labels = found.get("labels")
    return Project(
        id=str(found.get("projectId", "")),
        number=str(found.get("name", "")).removeprefix("projects/"),
        labels={str(key): str(value) for key, value in labels.items()} if isinstance(labels, dict) else {},
    )


def get(project: str, *, web: Web, token: Callable[[], Token], endpoint: str) -> Project:
    """Ask for it. Raises Denied, Unreachable."""
    headers = {"Authorization": f"Bearer {token().value}"}
    base = endpoint or ENDPOINT
    try:
        reply = web.ask(Call(url=f"{base.rstrip('/')}/v3/projects/{project}", headers=headers))
        return read(judge(reply, what=f"resource manager, project {project}", project=project))
    except NoReply as error:
        raise Unreachable(
            f"resource manager {base}, project {project}: {error}", hint="set PROJECT_NUMBER and CLUSTER_NAME"
        ) from error
