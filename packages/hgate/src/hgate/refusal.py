"""Why something that was declared is not done: a reason and what to do, as an event and the log tell it."""

from __future__ import annotations


class Refused(Exception):
    """A declaration, or a part of it, that is not followed."""

    def __init__(self, reason: str, *, hint: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.hint = hint


def shown(text: str, *, limit: int = 100) -> str:
    """What others wrote, as it can stand in a message: quoted, of one line, of bounded length."""
    return repr(text if len(text) <= limit else f"{text[:limit]}…")
