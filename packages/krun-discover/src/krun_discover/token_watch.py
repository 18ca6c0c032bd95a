"""A file whose token is always good: renewed at 80 % of its life, tried again while that fails, until told to end."""

from __future__ import annotations

import enum
import random
import time
from collections.abc import Callable

from krun_discover import lines
from krun_discover.errors import Failure
from krun_discover.issued import Token
from krun_discover.token_life import renewal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol
else:
    Protocol = object

GLANCE = 30.0  # seconds between looks at the wall clock: it may jump, or go on while we are frozen
SHORTEST = 1.0  # seconds between two renewals
FIRST_PAUSE = 1.0  # seconds after a failure, twice as many after each further one
LONGEST_PAUSE = 60.0
LAST_TRIES = 8  # after the old token's end: a laptop that wakes has no network for a while


class Wake(enum.Enum):
    """Why a pause is over."""

    TIME = "time"
    RENEW = "renew"
    END = "end"


class Sink(Protocol):
    """Where tokens go."""

    def write(self, token: Token) -> None:
        """Replace the token. Raises a Failure."""

    def remove(self) -> None:
        """Take it away."""


class Watch:
    """Keeps the sink's token good. ``pause`` waits so many seconds at most; ``clock`` is of time.time()."""

    def __init__(
        self,
        *,
        mint: Callable[[], Token],
        sink: Sink,
        pause: Callable[[float], Wake],
        clock: Callable[[], float] = time.time,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._mint = mint
        self._sink = sink
        self._pause = pause
        self._clock = clock
        self._draw = draw

    def run(self) -> None:
        """Until told to end. Raises the Failure of the first token, and that of the last try once there is none."""
        token, due = self._renewed()
        failures = late = 0  # in a row; those of them that came after the old token's end
        while self._until(due) is not Wake.END:
            try:
                token, due = self._renewed()
                failures = late = 0
            except Failure as error:
                failures += 1
                late += self._complain(token, error)
                if late > LAST_TRIES:
                    raise
                due = self._retry(token, failures=failures)

    def _renewed(self) -> tuple[Token, float]:
        """The new token, and when it is due to be renewed."""
        begun = self._clock()
        token = self._mint()
        self._sink.write(token)
        lines.info("token written", source=token.source, expires=stamp(token.expires))
        due = renewal(issued=begun, expires=token.expires, draw=self._draw())
        return token, max(due, self._clock() + SHORTEST)

    def _complain(self, token: Token, error: Failure) -> bool:
        """Say that there is no new token; tell whether there is no old one either."""
        has_expired = self._clock() >= token.expires
        if has_expired:
            self._sink.remove()
            message = "no new token, the old one has expired and is removed"
            lines.error(message, reason=error.message, expires=stamp(token.expires))
        else:
            message = "no new token, the old one is still good"
            lines.warning(message, reason=error.message, expires=stamp(token.expires))
        return has_expired

    def _retry(self, token: Token, *, failures: int) -> float:
        """When to try again; not later than the old token's end."""
        now = self._clock()
        due = now + min(FIRST_PAUSE * 2.0 ** min(failures - 1, 10), LONGEST_PAUSE)
        return min(due, token.expires) if token.expires > now else due

    def _until(self, due: float) -> Wake:
        begun = self._clock()
        while True:
            now = self._clock()
            if now >= due or now < begun:  # who has set the clock back has made the token's life unknown
                return Wake.TIME
            wake = self._pause(min(due - now, GLANCE))
            if wake is not Wake.TIME:
                return wake


def stamp(seconds: float) -> str:
    """A time as RFC 3339 has it, in UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(min(max(seconds, 0.0), 253402300799.0)))
