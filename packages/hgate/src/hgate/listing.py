"""Cloud Run's own list of services, asked for with the gate's account. Blocks."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from typing import Any

from hgate import cloud_run, errors, web
from hgate.policy import Listed
from hgate.token_source import Credentials

OVERRIDE = "CLOUDSDK_API_ENDPOINT_OVERRIDES_RUN"


def services(credentials: Credentials, wanted: Iterable[Listed]) -> list[cloud_run.Service]:
    """All services of these projects and regions; never a part of them.

    Raises:
        errors.Denied, errors.Unreachable, cloud_run.Unreadable: one of the lists could not be had.
    """
    token = credentials.access_token()
    url = (os.environ.get(OVERRIDE, "") or f"https://{cloud_run.HOST}/").rstrip("/")

    def fetch(path: str) -> dict[str, Any]:
        what = path.partition("?")[0]
        answer = web.call(f"{url}{path}", headers={"Authorization": f"Bearer {token}"})
        if answer.status in (401, 403):
            hint = "grant the gate's account roles/run.viewer in that project"
            raise errors.Denied(f"Cloud Run refuses {what}: {answer.status} {answer.words()}", hint=hint)
        if answer.status != 200:
            raise errors.Unreachable(f"Cloud Run fails at {what}: {answer.status} {answer.words()}")
        try:
            found = json.loads(answer.body)
        except ValueError as error:
            raise errors.Unreachable("Cloud Run's answer is no JSON") from error
        return found if isinstance(found, dict) else {}

    return [
        service
        for each in wanted
        for region in each.regions
        for service in cloud_run.lists(project=each.project, region=region, fetch=fetch)
    ]
