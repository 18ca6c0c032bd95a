"""A token that somebody has issued: its text is shown nowhere."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Token:
    """``expires`` is of time.time(), as instances are frozen and woken; ``source`` says who issued it, for a person."""

    value: str = field(repr=False)
    expires: float
    source: str
