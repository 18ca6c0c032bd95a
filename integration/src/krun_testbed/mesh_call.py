"""Calls of a test from within a place: HTTP on a socket there, and what the answer says."""

from __future__ import annotations

import contextlib
import http.client
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from krun_testbed.mesh_network import Place

TIMEOUT = 20.0  # seconds


@dataclass(frozen=True, kw_only=True)
class Answer:
    """An answer; ``json`` is that of the testbed's application."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def by(self) -> str:
        """The name of the application that answered."""
        return str(self.json["name"])

    @property
    def identities(self) -> tuple[str, str]:
        """Who called and who was called, as SPIFFE ids, by the header that Envoy gives the application."""
        text = str(self.json["headers"].get("x-forwarded-client-cert", ""))
        parts = dict(part.partition("=")[::2] for part in text.split(";"))
        return parts.get("URI", ""), parts.get("By", "")


def call(
    place: Place,
    url: str,
    *,
    to: str = "",
    port: int = 0,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    body: bytes = b"",
    timeout: float = TIMEOUT,
) -> Answer:
    """One request on a connection of its own; ``to`` and ``port`` are where it is sent, else where the URL says.

    With a whole URL as the target, as for a proxy, when ``to`` is given with the ``port`` of one.
    """
    parts = urlsplit(url)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    connection = http.client.HTTPConnection(parts.netloc, timeout=timeout)
    where = to or str(parts.hostname), port or parts.port or 80
    with contextlib.closing(connection), place.connect(*where, timeout=timeout) as connected:
        connection.sock = connected
        connection.request(method, target, body=body or None, headers=dict(headers or {}))
        answer = connection.getresponse()
        fields = {name.lower(): value for name, value in answer.getheaders()}
        return Answer(status=answer.status, headers=fields, body=answer.read())


def admin(place: Place, path: str, *, port: int = 15000, method: str = "GET") -> Answer:
    """Ask a proxy's own door in the place: Envoy's at 15000, the agent's at 15020 or 15021."""
    return call(place, f"http://localhost:{port}{path}", to="127.0.0.1", method=method)
