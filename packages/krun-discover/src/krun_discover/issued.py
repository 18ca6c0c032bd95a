"""A token that somebody has issued: its text is shown nowhere."""

from __future__ import annotations

from krun_discover.record import Record


class Token(Record, hidden=("value",)):
    """``expires`` is of time.time(), as instances are frozen and woken; ``source`` says who issued it, for a person."""

    value: str
    expires: float
    source: str
