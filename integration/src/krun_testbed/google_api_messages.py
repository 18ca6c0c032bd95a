"""Requests to Google's APIs as they came, answers, and Google's own form of errors (google.rpc.Status as JSON)."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

CODES = {
    "INVALID_ARGUMENT": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "RESOURCE_EXHAUSTED": 429,
    "INTERNAL": 500,
    "UNAVAILABLE": 503,
}


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One request. Names of headers are in small letters; the query's values are the last of each name."""

    api: str
    method: str
    target: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def path(self) -> str:
        return urlsplit(self.target).path

    @property
    def query(self) -> dict[str, str]:
        return {name: values[-1] for name, values in parse_qs(urlsplit(self.target).query).items()}

    @property
    def bearer(self) -> str:
        """The token that came with it; empty when none did."""
        kind, _, token = self.headers.get("authorization", "").partition(" ")
        return token.strip() if kind.lower() == "bearer" else ""

    @property
    def fields(self) -> dict[str, Any]:
        """The body's fields, of a form or of JSON, whichever came."""
        if "json" not in self.headers.get("content-type", ""):
            return {name: values[-1] for name, values in parse_qs(self.body.decode(errors="replace")).items()}
        try:
            found = json.loads(self.body or b"{}")
        except ValueError as error:
            raise refused("INVALID_ARGUMENT", "Invalid JSON payload received.") from error
        return found if isinstance(found, dict) else {}


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What goes back."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


Api = Callable[[Asked], Answer]


class Refused(Exception):
    """A request that is answered by an error, from wherever it was found out."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.status)
        self.answer = answer


def ok(value: object) -> Answer:
    """An object of JSON."""
    return _json(200, value)


def refused(status: str, message: str, *, reason: str = "", **metadata: str) -> Refused:
    """An error of Google's APIs, to be raised: ``status`` is a name of google.rpc.Code, ``reason`` of its details."""
    return Refused(error(CODES[status], message, status=status, reason=reason, **metadata))


def error(code: int, message: str, *, status: str = "", reason: str = "", **metadata: str) -> Answer:
    """An error of Google's APIs."""
    known = {number: name for name, number in CODES.items()}
    said: dict[str, object] = {"code": code, "message": message, "status": status or known.get(code, "UNKNOWN")}
    if reason:
        kind = "type.googleapis.com/google.rpc.ErrorInfo"
        said["details"] = [{"@type": kind, "reason": reason, "domain": "googleapis.com", "metadata": metadata}]
    return _json(code, {"error": said})


def denied(permission: str, resource: str) -> Refused:
    """Somebody lacks a permission."""
    return refused(
        "PERMISSION_DENIED",
        f"Permission '{permission}' denied on resource '{resource}' (or it may not exist).",
        reason="IAM_PERMISSION_DENIED",
        permission=permission,
        resource=resource,
    )


def oauth_error(error: str, description: str, *, status: int = 400) -> Refused:
    """An error of a token endpoint (RFC 6749 §5.2), to be raised."""
    return Refused(_json(status, {"error": error, "error_description": description}))


def _json(status: int, value: object) -> Answer:
    body = json.dumps(value, indent=2).encode()
    return Answer(status=status, body=body, headers={"Content-Type": "application/json; charset=UTF-8"})
