"""The account of one stream: what may be sent on it, what may come, and which of its ends are open."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from hbone.conduit import Conduit

    class Passer(Protocol):
        """Who has a stream, and takes its payload by the conduit."""

        def pass_on(self, source: int, conduit: Conduit, count: int) -> int:
            """Take up to so many bytes from the connection's file: how many that were, 0 at its end. Raises OSError
            of the connection's, Unable when it is to be read."""


class Flow:
    """One stream. Windows are RFC 9113 §5.2's; a window for sending may be negative (§6.9.2)."""

    __slots__ = (
        "allowed",
        "is_answered",
        "is_ended_by_peer",
        "is_ended_by_us",
        "is_over",
        "number",
        "owed",
        "passer",
        "width",
        "window",
    )

    def __init__(self, *, number: int, window: int, allowed: int) -> None:
        self.number = number
        self.window = window  # bytes that we may send
        self.allowed = allowed  # bytes that the peer may send
        self.width = allowed  # of the window that the peer is given
        self.owed = 0  # bytes handed on, and not yet given back to it
        self.is_ended_by_peer = False
        self.is_ended_by_us = False
        self.is_answered = False  # by the server, as a client sees it
        self.is_over = False
        self.passer: Passer | None = None  # who takes payload that is not read
