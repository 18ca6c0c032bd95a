"""Why something that was declared is not done: a reason and what to do, as an event and the log tell it."""

from __future__ import annotations

from dataclasses import dataclass

from hgate import events
from hgate.declaration import Ref


class Refused(Exception):
    """A declaration, or a part of it, that is not followed."""

    def __init__(self, reason: str, *, hint: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.hint = hint


@dataclass(frozen=True, kw_only=True, slots=True)
class Refusal:
    """A declaration that is not followed, and why. ``what``: which part of its object, where there are several.

    ``event``: how it is called; what is no declaration may stand in its way, and is told as well.
    """

    ref: Ref
    reason: str
    hint: str
    what: str = ""
    event: str = events.REFUSED


def shown(text: str, *, limit: int = 100) -> str:
    """What others wrote, as it can stand in a message: quoted, of one line, of bounded length."""
    return repr(text if len(text) <= limit else f"{text[:limit]}…")
