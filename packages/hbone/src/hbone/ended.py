"""What became of a tunnel, for who has asked for it."""

from __future__ import annotations

from dataclasses import dataclass

from hbone.errors import Failure


@dataclass(frozen=True, kw_only=True, slots=True)
class Ended:
    """With a ``failure`` there was no tunnel, and the local end is untouched; else it is closed."""

    reason: str
    sent: int = 0  # bytes from the local end
    received: int = 0  # bytes to it
    status: int = 0  # of the server's answer, 0 without one
    is_orderly: bool = False  # both sides have said all
    failure: Failure | None = None
