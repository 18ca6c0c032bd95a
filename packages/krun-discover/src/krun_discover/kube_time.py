"""Times as Kubernetes writes them."""

from __future__ import annotations

from datetime import UTC, datetime


def moment(text: str) -> float:
    """The seconds, of time.time(), of a time such as 2026-08-01T12:00:00Z (RFC 3339). Raises ValueError."""
    found = datetime.fromisoformat(text)
    try:
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
    except OverflowError as error:
        raise ValueError("out of range") from error
