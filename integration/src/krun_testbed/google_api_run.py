"""The Cloud Run Admin API: services of a project in a region (run.googleapis.com, v2), in pages."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from krun_testbed.google_api_messages import Answer, Asked, Refused, ok, refused
from krun_testbed.google_api_tokens import Accounts

SERVICES = re.compile(r"/v2/projects/([^/]+)/locations/([^/]+)/services")
MOST = 100  # services on a page
HASH = "icq63pqnqq"  # of every project and region here: what it is made of nobody knows
CODES = {"us-central1": "uc", "us-east1": "ue", "europe-west1": "ew", "asia-east1": "de"}


@dataclass(kw_only=True)
class Run:
    """The services, by project id."""

    accounts: Accounts
    numbers: Mapping[str, str]
    services: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def __call__(self, asked: Asked) -> Answer:
        """Answer one request."""
        found = SERVICES.fullmatch(asked.path)
        if found is None or asked.method != "GET":
            raise refused("NOT_FOUND", f"Method not found: {asked.method} {asked.path}")
        project, location = found[1], found[2]
        parent = f"projects/{project}/locations/{location}"
        self.accounts.caller(asked, permission="run.services.list", resource=parent)
        if location == "-":
            raise refused("INVALID_ARGUMENT", "Location must be a valid Google Cloud region, and not '-'.")
        rows = self.services.get(self.numbers.get(project, project), [])
        here = [row for row in rows if row["name"].split("/")[3] == location]
        begin = _begin(asked.query.get("pageToken", ""), parent=parent)
        end = begin + _size(asked.query.get("pageSize", ""))
        whole = {"services": here[begin:end], "nextPageToken": _token(end, parent=parent) if end < len(here) else ""}
        return ok({key: value for key, value in whole.items() if value})


def service(
    name: str,
    *,
    project: str,
    number: str,
    region: str = "us-central1",
    namespace: str = "",
    account: str = "",
    timeout: int = 300,
) -> dict[str, Any]:
    """A service as the API describes it; ``namespace`` is its label, ``account`` as whom it runs."""
    older = f"https://{name}-{HASH}-{CODES[region]}.a.run.app"
    return {
        "name": f"projects/{project}/locations/{region}/services/{name}",
        "uid": f"uid-{name}",
        "generation": "1",
        **({"labels": {"krun-namespace": namespace}} if namespace else {}),
        "createTime": "2026-01-02T03:04:05.678901Z",
        "ingress": "INGRESS_TRAFFIC_ALL",
        "template": {
            "timeout": f"{timeout}s",
            "serviceAccount": account or f"{number}-compute@developer.gserviceaccount.com",
            "containers": [{"image": "image", "ports": [{"name": "h2c", "containerPort": 15009}]}],
        },
        "uri": older,
        "urls": [f"https://{name}-{number}.{region}.run.app", older],
        "terminalCondition": {"type": "Ready", "state": "CONDITION_SUCCEEDED"},
    }


def _size(text: str) -> int:
    if text and not text.isdecimal():
        raise refused("INVALID_ARGUMENT", f"Invalid value at 'page_size' (TYPE_INT32), {text!r}")
    return min(int(text or 0) or MOST, MOST)


def _token(begin: int, *, parent: str) -> str:
    """Where the next page begins, so that nobody reads it out of the token."""
    return base64.urlsafe_b64encode(f"{parent} {begin}".encode()).decode()


def _begin(token: str, *, parent: str) -> int:
    try:
        said, _, begin = base64.urlsafe_b64decode(token).decode().rpartition(" ")
        if not token:
            return 0
        if said != parent:
            raise ValueError(said)
        return int(begin)
    except (ValueError, binascii.Error) as error:
        raise _invalid() from error


def _invalid() -> Refused:
    return refused("INVALID_ARGUMENT", "The page token is not of this list.")
