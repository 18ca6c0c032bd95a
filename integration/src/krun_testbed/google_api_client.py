"""A client of the stand-ins for Google's APIs that says what it was answered, headers too."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import ssl
from typing import Any
from urllib.parse import urlencode

from krun_testbed.google_api import GoogleApi
from krun_testbed.google_api_container import cluster

EMAIL = "workload@demo-project.iam.gserviceaccount.com"
CLUSTERS = "/v1/projects/demo-project/locations/-/clusters"
FORM = "application/x-www-form-urlencoded"


class Client:
    """Asks the servers with a token, and remembers the headers of the last answer."""

    def __init__(self, google: GoogleApi) -> None:
        self.google = google
        self.token = google.accounts.access_token(EMAIL)
        self.headers: dict[str, str] = {}

    def ask(
        self,
        api: str,
        path: str,
        *,
        method: str = "GET",
        body: object = None,
        kind: str = "application/json",
        timeout: float = 10,
        **headers: str,
    ) -> tuple[int, Any]:
        host, port = self.google.servers[api].where()
        trust = ssl.create_default_context(cafile=self.google.roots)
        connection = http.client.HTTPSConnection(host, port, timeout=timeout, context=trust)
        whole = {"Authorization": f"Bearer {self.token}", "Content-Type": kind} | headers
        text = urlencode(body) if kind == FORM and isinstance(body, dict) else json.dumps(body) if body else None
        with contextlib.closing(connection):
            connection.request(method, path, body=text, headers={k: v for k, v in whole.items() if v})
            response = connection.getresponse()
            answer = response.read()
            self.headers = {name.lower(): value for name, value in response.getheaders()}
            return response.status, json.loads(answer) if answer.startswith(b"{") else answer.decode()

    def post(self, api: str, path: str, body: object, *, kind: str = "application/json") -> tuple[int, Any]:
        return self.ask(api, path, method="POST", body=body, kind=kind)

    def refusal(self, api: str, path: str, **more: Any) -> tuple[int, str, str]:
        """Code, status and reason of Google's error."""
        code, answer = self.ask(api, path, **more)
        error = answer["error"]
        assert error["code"] == code
        assert error["message"]
        return code, error["status"], error.get("details", [{"reason": ""}])[0]["reason"]


def claims(token: str) -> dict[str, Any]:
    """What a token says of itself."""
    middle = token.split(".")[1]
    found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(middle + "=" * (-len(middle) % 4)))
    return found


def add_clusters(google: GoogleApi, *names: str) -> None:
    """Clusters of the project, without an API server."""
    rows = google.container.clusters["demo-project"]
    rows += [cluster(name, project="demo-project", root=b"PEM", public="203.0.113.7") for name in names]
