"""The account of one stream: what may be sent on it, what may come, and which of its ends are open."""

from __future__ import annotations


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
