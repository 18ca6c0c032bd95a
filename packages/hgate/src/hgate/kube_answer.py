"""Answers of the Kubernetes API that are no success, as exceptions: what it said, and what to do about it."""

from __future__ import annotations

import json
from collections.abc import Mapping

from hgate.kube_access import Access

MAX_MESSAGE = 400  # characters of others' words in a log line


class NotLeader(Exception):
    """The lease is not ours (any more): nothing was sent."""

    def __init__(self) -> None:
        super().__init__("another replica holds the lease")


class Answer(Exception):
    """The API server has answered, with a status of 400 or more. ``reason`` is Kubernetes' own word."""

    def __init__(self, *, access: Access, status: int, reason: str, message: str, retry_after: float = 0.0) -> None:
        super().__init__(f"cannot {access}: {status} {reason}: {message}")
        self.access = access
        self.status = status
        self.reason = reason
        self.message = message
        self.retry_after = retry_after

    @property
    def is_denied(self) -> bool:
        return self.status == 403 and self.reason == "Forbidden"

    @property
    def is_conflict(self) -> bool:
        """Somebody else was quicker, or the object is there already."""
        return self.status == 409

    @property
    def is_expired(self) -> bool:
        """A watch cannot go on from where it was: list anew."""
        return self.status == 410

    @property
    def is_passing(self) -> bool:
        """The server is busy, or starts: the same request may succeed later."""
        return self.status == 429 or self.status >= 500


def read_answer(*, access: Access, status: int, headers: Mapping[str, str], body: bytes) -> Answer:
    """A failed response as an exception; what is no Status of Kubernetes (a proxy's page) is quoted in short."""
    reason, message, retry = "", "", 0.0
    try:
        said = json.loads(body)
    except ValueError:
        said = None
    if isinstance(said, dict):
        reason, message = str(said.get("reason", "")), str(said.get("message", ""))
        details = said.get("details")
        retry = _seconds(details.get("retryAfterSeconds")) if isinstance(details, dict) else 0.0
    else:
        message = body[: MAX_MESSAGE * 4].decode(errors="replace").strip()
    retry = max(retry, _seconds(headers.get("Retry-After")))
    return Answer(
        access=access, status=status, reason=reason or "-", message=message[:MAX_MESSAGE], retry_after=min(retry, 60.0)
    )


def _seconds(found: object) -> float:
    """Seconds of a number or a header; a date, or nothing, is 0."""
    try:
        seconds = float(str(found))
    except ValueError:
        return 0.0
    return seconds if 0 < seconds < 1e6 else 0.0
