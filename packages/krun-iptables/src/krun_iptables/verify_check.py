"""The result of one proof."""

from __future__ import annotations

from typing import TYPE_CHECKING

from krun_iptables.record import Record

if TYPE_CHECKING:
    from typing import Literal


class Check(Record):
    """What was to be proven, and what came of it."""

    name: str
    outcome: Literal["ok", "fail", "unknown"]  # unknown: it could not be tried
    text: str
    hint: str = ""
    denied: bool = False  # unknown for want of permission

    @property
    def line(self) -> str:
        """For a person."""
        return f"{self.outcome:<8}{self.name}: {self.text}"
