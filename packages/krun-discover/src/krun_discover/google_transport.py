"""Requests of google-auth, made as all of ours: journaled, with a limit, and without its heavier transports."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from google.auth import transport

from krun_discover.google_endpoints import safe
from krun_discover.web import Call, Reply, Tls, Web

LINK_LOCAL = "169.254."  # metadata servers of all clouds, which have no TLS
NAMES = ("metadata.google.internal",)


class Response(transport.Response):
    """What google-auth reads of an answer."""

    def __init__(self, reply: Reply) -> None:
        self._reply = reply

    @property
    def status(self) -> int:
        """The status."""
        return self._reply.status

    @property
    def headers(self) -> Mapping[str, str]:
        """Names in small letters."""
        return self._reply.headers

    @property
    def data(self) -> bytes:
        """The body."""
        return self._reply.body


class Request(transport.Request):
    """google.auth.transport.Request over Web; NoReply and Failure go through google-auth to our caller."""

    def __init__(self, *, web: Web) -> None:
        self._web = web

    def __call__(
        self,
        url: str,
        method: str = "GET",
        body: bytes | str | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
        **more: Any,
    ) -> Response:
        """One request; ``cert`` may be a pair of files. Raises NoReply, and Misconfigured for plain http."""
        if not (method == "GET" and _is_next_door(url)):
            # Also without a header that Web knows for a secret: tokens stand in bodies, and in answers.
            safe(url, what=f"credential file, {urlsplit(url).hostname}")
        certificate, key = more.get("cert") or ("", "")
        data = body.encode() if isinstance(body, str) else body or b""
        call = Call(url=url, method=method, headers=headers or {}, body=data, tls=Tls(certificate=certificate, key=key))
        return Response(self._web.ask(call, limit=timeout or 0.0))


def _is_next_door(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    return host.startswith(LINK_LOCAL) or host in NAMES
