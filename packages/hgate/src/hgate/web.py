"""One request to Google's APIs or the metadata server: bounded in time and size, never redirected."""

from __future__ import annotations

import http.client
import socket
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO
from urllib.parse import urlsplit

from hgate import errors

TIMEOUT = 10.0  # seconds until an answer begins, and between its pieces
MAX_ANSWER = 16 * 1024 * 1024  # bytes


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What came back, whatever its status."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def words(self) -> str:
        """The beginning of the body, on one line, for an error."""
        return " ".join(self.body[:600].decode(errors="replace").split())[:300]


class _Straight(urllib.request.HTTPRedirectHandler):
    """Redirects are answers: a token must not go where somebody else says."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> None:
        return None


def call(
    url: str,
    *,
    headers: Mapping[str, str],
    body: bytes | None = None,
    is_local: bool = False,
    timeout: float = TIMEOUT,
) -> Answer:
    """GET, or POST with a body. ``is_local``: the metadata server, which is never behind a proxy.

    Raises:
        errors.Unreachable: no answer, in time; the message names the host, and nothing of the headers.
    """
    handlers: list[urllib.request.BaseHandler] = [_Straight()]
    if is_local:
        handlers.append(urllib.request.ProxyHandler({}))
    opener = urllib.request.build_opener(*handlers)
    request = urllib.request.Request(url, data=body, headers=dict(headers))
    try:
        try:
            response = opener.open(request, timeout=timeout)
        except urllib.error.HTTPError as error:
            response = error
        with response:
            return Answer(
                status=int(response.status), headers=dict(response.headers.items()), body=response.read(MAX_ANSWER)
            )
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise errors.Unreachable(f"no answer from {urlsplit(url).netloc}: {reason}") from error


def is_unknown_name(error: errors.Unreachable) -> bool:
    """Whether the host was not reached because nobody knows its name."""
    return isinstance(getattr(error.__cause__, "reason", None), socket.gaierror)
