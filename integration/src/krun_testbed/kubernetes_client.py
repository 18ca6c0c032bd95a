"""Requests to a real API server, in plain REST, and YAML manifests applied: what kubectl would do, without it."""

from __future__ import annotations

import functools
import http.client
import json
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from krun_testbed.processes import wait_until

TIMEOUT = 20.0  # seconds for one request
MANAGER = "krun-testbed"  # who owns the fields that were applied
APPLY = "application/apply-patch+yaml"
DEFINITION = "CustomResourceDefinition"


class ApiError(Exception):
    """A refusal: ``status`` is HTTP's, ``reason`` the one of Kubernetes (NotFound, Forbidden, …)."""

    def __init__(self, *, status: int, reason: str, message: str) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.reason = reason


@dataclass(frozen=True, kw_only=True)
class Client:
    """One caller of the API: by a client certificate, or by a token."""

    url: str
    root: bytes
    token: str = field(default="", repr=False)
    certificate: Path | None = None  # chain and key in one file
    _kinds: dict[str, dict[str, Any]] = field(default_factory=dict, repr=False)

    def request(self, method: str, path: str, body: object = None, *, kind: str = "application/json") -> Any:
        """The answer's object. Raises ApiError for a status of 400 and above."""
        headers = {"Accept": "application/json", "Content-Type": kind}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        status, answer = self.exchange(method, path, headers=headers, body=_encoded(body))
        text = answer.decode(errors="replace")
        if status >= 400:
            raise _refusal(status, text)
        return json.loads(text) if text.startswith("{") else text

    def exchange(self, method: str, path: str, *, headers: Mapping[str, str], body: bytes) -> tuple[int, bytes]:
        """One request as it is, and what came back."""
        connection = self.connection()
        try:
            connection.request(method, path, body=body or None, headers=dict(headers))
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def connection(self) -> http.client.HTTPSConnection:
        """A connection of its own, to be closed by who asked for it."""
        where = urlsplit(self.url)
        context = ssl.create_default_context(cadata=self.root.decode())
        if self.certificate:
            context.load_cert_chain(self.certificate)
        return http.client.HTTPSConnection(where.hostname or "", where.port, timeout=TIMEOUT, context=context)

    def get(self, path: str) -> Any:
        return self.request("GET", path)

    def create(self, path: str, body: object) -> Any:
        return self.request("POST", path, body)

    def delete(self, path: str) -> None:
        self.request("DELETE", path)

    def apply(self, *manifests: str | Path | Mapping[str, Any], namespace: str = "default") -> list[Any]:
        """Apply objects: YAML text of any number of documents, files of such, or objects. Applied again, they change.

        The namespace is the one of objects that name none.
        """
        found = [item for manifest in manifests for item in _documents(manifest)]
        definitions = [item for item in found if item["kind"] == DEFINITION]
        namespaces = [item for item in found if item["kind"] == "Namespace"]
        others = [item for item in found if item["kind"] not in (DEFINITION, "Namespace")]
        first = [self._apply(item, namespace=namespace) for item in definitions + namespaces]
        for item in definitions:
            wait_until(functools.partial(self._is_served, item), what=f"{item['metadata']['name']} is served")
        return first + [self._apply(item, namespace=namespace) for item in others]

    def _is_served(self, definition: Mapping[str, Any]) -> bool:
        """Tell whether the server knows a new kind in each of its versions: it takes a moment."""
        spec = definition["spec"]
        try:
            for version in (version["name"] for version in spec["versions"] if version["served"]):
                listed = self.get(f"/apis/{spec['group']}/{version}")["resources"]
                if spec["names"]["plural"] not in [entry["name"] for entry in listed]:
                    return False
        except ApiError as error:
            if error.status != 404:
                raise
            return False
        return True

    def path_of(self, item: Mapping[str, Any], *, namespace: str = "default") -> str:
        """Where an object is, by the server's own list of its kinds."""
        version, kind = item["apiVersion"], item["kind"]
        base = f"/apis/{version}" if "/" in version else f"/api/{version}"
        known = self._kinds.get(base, {})
        if kind not in known:
            resources = self.get(base)["resources"]
            known = {entry["kind"]: entry for entry in reversed(resources) if "/" not in entry["name"]}
            self._kinds[base] = known
        entry = known[kind]
        within = item["metadata"].get("namespace") or namespace
        scope = f"/namespaces/{within}" if entry["namespaced"] else ""
        return f"{base}{scope}/{entry['name']}/{item['metadata']['name']}"

    def _apply(self, item: Mapping[str, Any], *, namespace: str) -> Any:
        path = self.path_of(item, namespace=namespace)
        return self.request("PATCH", f"{path}?fieldManager={MANAGER}&force=true", item, kind=APPLY)


def _documents(manifest: str | Path | Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    if isinstance(manifest, Mapping):
        yield manifest
        return
    text = manifest.read_text(encoding="utf-8") if isinstance(manifest, Path) else manifest
    for document in yaml.safe_load_all(text):
        if document and document.get("kind") == "List":
            yield from document["items"]
        elif document:
            yield document


def _encoded(body: object) -> bytes:
    return b"" if body is None else json.dumps(body).encode()


def _refusal(status: int, text: str) -> ApiError:
    try:
        answer = json.loads(text)
    except ValueError:
        return ApiError(status=status, reason="", message=text.strip())
    return ApiError(status=status, reason=answer.get("reason", ""), message=answer.get("message", ""))
