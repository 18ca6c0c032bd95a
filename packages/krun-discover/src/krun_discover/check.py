"""One finding of the doctor: passed, failed, or not applicable, and the command that mends it."""

from __future__ import annotations

import enum
from collections.abc import Iterable

from krun_discover.errors import Exit, Failure
from krun_discover.record import Record

# What a failure of each kind means for the whole, worst first: what nobody but a person can mend, then what may pass.
WORST_FIRST = (Exit.BUG, Exit.MISCONFIGURED, Exit.MALFORMED, Exit.DENIED, Exit.UNREACHABLE, Exit.DEADLINE)


class Outcome(enum.StrEnum):
    """As it is printed."""

    PASS = "pass"
    FAIL = "fail"
    NONE = "n/a"


class Check(Record):
    """``text`` says what was found; ``fix`` is a command, or what else to do; ``status`` is of a failure."""

    name: str
    outcome: Outcome
    text: str
    fix: str = ""
    status: int = Exit.OK


def passed(name: str, text: str) -> Check:
    return Check(name=name, outcome=Outcome.PASS, text=text)


def absent(name: str, text: str, *, fix: str = "") -> Check:
    """Not applicable here."""
    return Check(name=name, outcome=Outcome.NONE, text=text, fix=fix)


def failed(name: str, failure: Failure, *, fix: str = "") -> Check:
    """Failed as the failure says, which may be one that would have ended the tool."""
    text = failure.message.rstrip(".")
    return Check(name=name, outcome=Outcome.FAIL, text=text, fix=fix or failure.hint, status=int(failure.exit_code))


def worst(checks: Iterable[Check]) -> int:
    """The exit status of them all."""
    found = {check.status for check in checks if check.outcome is Outcome.FAIL}
    return next((int(status) for status in WORST_FIRST if status in found), max(found, default=Exit.OK))
