"""The precedence engine: which of many sources gives each variable, what lost, and what was tried. Pure.

Sources are asked in the order in which they are given, and only until one has a value. A source that comes after the
winner is asked no more, unless the answer costs nothing: then it is noted as what lost.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

from krun_discover.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol
else:
    Protocol = object

# Names that may be taken from a file or a family such as PORT_*; the dot is for Istio's own.
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*")
UNASKED = "not asked: nothing needs it"


class Answer(Record):
    """What a source says: a value, or an empty one and the reason in ``note``; ``failed``: it could not be asked."""

    value: str = ""
    note: str = ""
    failed: bool = False


class Candidate(Record):
    """One place where a variable may be found. ``free`` tells whether asking costs nothing (no request) now."""

    source: str
    ask: Callable[[], Answer]
    free: Callable[[], bool] = lambda: True


class Known(Protocol):
    """The other variables, for rules that derive one from another."""

    def value(self, name: str) -> str:
        """The value, looked for as far as needed; empty when there is none."""

    def peek(self, name: str) -> str | None:
        """The value as far as it costs nothing; ``None`` when that would take a request."""

    def failed(self, name: str) -> bool:
        """Tell whether a source that might have had the value could not be asked."""


class Source(Protocol):
    """A source of variables; asked lazily, so that making one must cost nothing."""

    def names(self) -> Iterable[str]:
        """Names that it has and that nobody can list beforehand (``PORT_*``)."""

    def candidates(self, name: str, known: Known) -> Iterable[Candidate]:
        """Where it would look for the variable, in order."""


class Attempt(Record):
    """One candidate that was asked, and what came of it."""

    source: str
    value: str
    note: str
    failed: bool


class Resolved(Record):
    """One variable: its value, where from, what had another value and lost, and all that was tried, in order."""

    name: str
    value: str
    source: str
    lost: tuple[Attempt, ...]
    tried: tuple[Attempt, ...]

    @property
    def failed(self) -> bool:
        """A better source than the one that won, or any when none did, could not be asked."""
        return any(attempt.failed for attempt in self.tried)


class Resolution:
    """The variables that are found so far; each is looked for at most once."""

    def __init__(self, *, sources: Sequence[Source]) -> None:
        self._sources = sources
        self._found: dict[str, Resolved] = {}
        self._open: set[str] = set()

    def names(self) -> set[str]:
        """All names that the sources bring along by themselves."""
        return {name for source in self._sources for name in source.names()}

    def find(self, name: str) -> Resolved:
        """Look for the variable in all sources, at any cost. Raises ValueError when its rules go in a circle."""
        if name not in self._found:
            if name in self._open:
                raise ValueError(f"{name} is derived from itself")
            self._open.add(name)
            self._found[name] = _settle(name, self._candidates(name), costly=True)
            self._open.remove(name)
        return self._found[name]

    def glance(self, name: str) -> Resolved:
        """Look for a variable that nothing needs: take what costs nothing."""
        return self._found.get(name) or _settle(name, self._candidates(name), costly=False)

    def value(self, name: str) -> str:
        """See Known."""
        return self.find(name).value

    def peek(self, name: str) -> str | None:
        """See Known."""
        if name in self._found:
            return self._found[name].value
        for candidate in self._candidates(name):
            if not candidate.free():
                return None
            if value := candidate.ask().value:
                return value
        return ""

    def failed(self, name: str) -> bool:
        """See Known."""
        return self.find(name).failed

    def _candidates(self, name: str) -> Iterable[Candidate]:
        for source in self._sources:
            yield from source.candidates(name, self)


def _settle(name: str, candidates: Iterable[Candidate], *, costly: bool) -> Resolved:
    winner: Attempt | None = None
    tried: list[Attempt] = []
    lost: list[Attempt] = []
    for candidate in candidates:
        if (winner or not costly) and not candidate.free():
            if not winner:
                tried.append(Attempt(source=candidate.source, value="", note=UNASKED, failed=False))
            continue
        answer = candidate.ask()
        attempt = Attempt(source=candidate.source, value=answer.value, note=answer.note, failed=answer.failed)
        if winner is None:
            tried.append(attempt)
            winner = attempt if answer.value else None
        elif answer.value:
            lost.append(attempt)
    return Resolved(
        name=name,
        value=winner.value if winner else "",
        source=winner.source if winner else "",
        lost=tuple(lost),
        tried=tuple(tried),
    )
