"""ID tokens that the control process has made: a worker keeps them, asks for them, and lets connections wait for one.

A worker never makes one: it knows no key, and asks nobody but the control process.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from hgate.deadlines import Deadlines
from hgate.feed import Need, NoToken, Token
from hgate.routes import Identity

WAIT = 20.0  # seconds; the control process has said why before, if it can
MAX_WAITING = 1000  # connections
LEAST_LIFE = 5.0  # seconds that a token must still live
AGAIN = 1.0  # seconds before one that could not be made, or was asked for, is asked for again
GONE = "the control process, which makes tokens, is gone"

Found = Callable[[Token | NoToken], None]


class Tokens:
    """The tokens; ``ask`` sends what is needed to the control process."""

    def __init__(self, *, ask: Callable[[Need], None], wait: float = WAIT, max_waiting: int = MAX_WAITING) -> None:
        self._ask = ask
        self._max_waiting = max_waiting
        self._loop = asyncio.get_running_loop()
        self._kept: dict[Identity, Token] = {}
        self._used: set[Identity] = set()  # those whose token has been used: that is said once of each
        self._refused: dict[Identity, str] = {}  # tokens that a server did not take
        self._asked: dict[Identity, float] = {}
        self._denied: dict[Identity, tuple[NoToken, float]] = {}
        self._waiting: dict[Identity, list[Waiting]] = {}
        self._late: Deadlines[Waiting] = Deadlines(seconds=wait, passed=self._is_late)
        self._is_alone = False

    @property
    def waiting(self) -> int:
        """Connections that wait for a token."""
        return len(self._late)

    def find(self, identity: Identity, found: Found) -> Waiting | None:
        """Tell ``found`` the token, at once when there is one; or why there is none. The answer is who waits for it."""
        token = self._kept.get(identity)
        if token is not None and token.expires > time.time() + LEAST_LIFE:
            if identity not in self._used:
                self._used.add(identity)
                self._ask(Need(identity=identity))
            found(token)
            return None
        denied, until = self._denied.get(identity, (None, 0.0))
        if denied is not None and self._loop.time() < until:
            found(denied)
            return None
        return self._wait(identity, found, need=Need(identity=identity))

    def refused(self, token: Token, found: Found) -> Waiting | None:
        """A server did not take this token; tell ``found`` another one, or the same when there is no other."""
        identity = token.identity
        kept = self._kept.get(identity)
        if kept is not None and kept.token != token.token:
            found(kept)  # a new one has come meanwhile
            return None
        self._refused[identity] = token.token
        return self._wait(identity, found, need=Need(identity=identity, refused=True))

    def leave(self, one: Waiting) -> None:
        """Who waits does not want it any more."""
        self._late.done(one)
        self._remove(one)

    def heard(self, message: Token | NoToken) -> None:
        """The control process has made one, or could not."""
        identity = message.identity
        self._denied.pop(identity, None)
        if isinstance(message, NoToken):
            self._denied[identity] = (message, self._loop.time() + AGAIN)
        else:
            self._kept[identity] = message
            self._used.discard(identity)
            if self._refused.get(identity) != message.token:
                self._refused.pop(identity, None)
        self._asked.pop(identity, None)
        waiting = self._waiting.pop(identity, [])
        if waiting and isinstance(message, Token):
            self._used.add(identity)  # asked for: that says it
        for one in waiting:
            self._late.done(one)
            one.found(message)

    def is_alone(self) -> None:
        """The control process is gone: there will be no other tokens than these."""
        self._is_alone = True
        for identity in list(self._waiting):
            self.heard(NoToken(identity=identity, error=GONE))

    def _wait(self, identity: Identity, found: Found, *, need: Need) -> Waiting | None:
        if self._is_alone:
            found(NoToken(identity=identity, error=GONE))
            return None
        if self.waiting >= self._max_waiting:
            found(NoToken(identity=identity, error=f"{self._max_waiting} connections wait for tokens already"))
            return None
        one = Waiting(identity, found)
        self._waiting.setdefault(identity, []).append(one)
        self._late.add(one)
        # A hundred connections at once need one token; one that was asked for long ago may have been lost.
        now = self._loop.time()
        if need.refused or now - self._asked.get(identity, -AGAIN) >= AGAIN:
            self._asked[identity] = now
            self._ask(need)
        return one

    def _is_late(self, one: Waiting) -> None:
        self._remove(one)
        error = f"no ID token within {self._late.seconds:g} s"
        one.found(NoToken(identity=one.identity, error=error, hint="see the control process's log"))

    def _remove(self, one: Waiting) -> None:
        waiting = self._waiting.get(one.identity, [])
        if one in waiting:
            waiting.remove(one)
        if not waiting:
            self._waiting.pop(one.identity, None)


class Waiting:
    """A connection that waits."""

    __slots__ = ("found", "identity")

    def __init__(self, identity: Identity, found: Found) -> None:
        self.identity = identity
        self.found = found
