"""The resource manager: a project's number and labels (cloudresourcemanager.googleapis.com, v3 and v1)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from krun_testbed.google_api_messages import Answer, Asked, denied, ok
from krun_testbed.google_api_tokens import Accounts

PROJECT = re.compile(r"/(v1|v3)/projects/([^/:]+)")
SCOPES = ("https://www.googleapis.com/auth/cloud-platform.read-only",)
PERMISSION = "resourcemanager.projects.get"


@dataclass(frozen=True, kw_only=True)
class Project:
    """One project."""

    id: str
    number: str
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(kw_only=True)
class Projects:
    """The projects that there are."""

    accounts: Accounts
    known: list[Project]

    def __call__(self, asked: Asked) -> Answer:
        """Answer one request. What is not there and what is not allowed look the same from outside."""
        found = PROJECT.fullmatch(asked.path)
        name = found[2] if found else ""
        resource = f"//cloudresourcemanager.googleapis.com/projects/{name}"
        self.accounts.caller(asked, permission=PERMISSION, resource=resource, scopes=SCOPES)
        one = next((project for project in self.known if name in (project.id, project.number)), None)
        if found is None or asked.method != "GET" or one is None:
            raise denied(PERMISSION, resource)
        return ok(_v1(one) if found[1] == "v1" else _v3(one))


def _v3(project: Project) -> dict[str, object]:
    return {
        "name": f"projects/{project.number}",
        "parent": "organizations/100000000001",
        "projectId": project.id,
        "state": "ACTIVE",
        "displayName": project.id,
        "createTime": "2026-01-02T03:04:05.678Z",
        **({"labels": dict(project.labels)} if project.labels else {}),
    }


def _v1(project: Project) -> dict[str, object]:
    return {
        "projectNumber": project.number,
        "projectId": project.id,
        "lifecycleState": "ACTIVE",
        "name": project.id,
        "createTime": "2026-01-02T03:04:05.678Z",
        **({"labels": dict(project.labels)} if project.labels else {}),
    }
