"""Tokens of others that a cluster takes, as GKE takes Google's: its API server asks here who a token's holder is."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, ClassVar, Self

# A token's holder, as the cluster knows users (for Google's, the account's email); None when it is no such token.
Holder = Callable[[str], str | None]


class Reviewer:
    """The webhook of ``--authentication-token-webhook-config-file``: a TokenReview comes, and goes back answered.

    ``tokens`` maps those that are known to users; ``holders`` are asked for the rest, in order.
    """

    def __init__(self, *, address: str) -> None:
        self.tokens: dict[str, str] = {}
        self.holders: list[Holder] = []
        handler = type("Handler", (_Handler,), {"reviewer": self})
        self._server = http.server.ThreadingHTTPServer((address, 0), handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})

    @property
    def url(self) -> str:
        host, port = self._server.server_address[:2]
        return f"http://{host!s}:{port}/"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def user_of(self, token: str) -> str | None:
        """Who holds the token."""
        if token in self.tokens:
            return self.tokens[token]
        return next((user for holder in list(self.holders) if (user := holder(token))), None)

    def review(self, asked: dict[str, Any]) -> dict[str, Any]:
        """The TokenReview with its status."""
        user = self.user_of(asked["spec"]["token"])
        status = {"authenticated": True, "user": {"username": user}} if user else {"authenticated": False}
        return {"apiVersion": asked["apiVersion"], "kind": "TokenReview", "status": status}


class _Handler(http.server.BaseHTTPRequestHandler):
    """One connection of the API server. The name of the method is http.server's."""

    reviewer: ClassVar[Reviewer]
    protocol_version = "HTTP/1.1"
    timeout = 30.0  # seconds that an idle connection may stay

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        body = json.dumps(self.reviewer.review(asked)).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Be quiet."""
