"""Leads a connection on by a tunnel: gets the token that it needs, and says what to do when there is no tunnel."""

from __future__ import annotations

import time
from collections.abc import Callable

from hbone.client import Client
from hbone.ended import Ended
from hbone.errors import Failure as TunnelFailure
from hbone.opening import Opening
from hbone.poller import Poller
from hbone.urls import URL
from hgate.connection import BY_BUG, ENDED_NOW, Connection
from hgate.counts import BROKEN, BUG, STATUS, TOKEN, UNREACHABLE
from hgate.feed import NoToken, Token
from hgate.routes import Identity
from hgate.tokens import Tokens, Waiting

UNAUTHENTICATED = 401
HAS_LEFT = 0x2000  # EPOLLRDHUP: it has said its last, whatever of it is still to be read; others have no such event


class Tunnel:
    """One connection's tunnel; ``over`` is told when it has ended, or did not come about."""

    __slots__ = (
        "_client",
        "_connection",
        "_first",
        "_is_again",
        "_opening",
        "_over",
        "_poller",
        "_token",
        "_tokens",
        "_url",
        "_waiting",
    )

    def __init__(
        self,
        connection: Connection,
        url: URL,
        *,
        client: Client,
        tokens: Tokens,
        poller: Poller,
        over: Callable[[Tunnel], None],
    ) -> None:
        self._connection = connection
        self._url = url
        self._client = client
        self._tokens = tokens
        self._poller = poller
        self._over = over
        self._first = b""
        self._token: Token | None = None
        self._opening: Opening | None = None
        self._is_again = False
        self._waiting: Waiting | None = None  # for a token

    def begin(self, first: bytes, *, identity: Identity | None) -> None:
        """Open it, with a token of this identity, and send ``first`` before all else."""
        self._first = first
        if identity is None:
            self._carry()
        else:
            self._wait(self._tokens.find(identity, self._found))

    def end_now(self) -> None:
        if self._opening is not None:
            self._opening.end_now()
        else:
            self._fail(ENDED_NOW, cause=TOKEN)

    def end_by_bug(self) -> None:
        if self._opening is not None:
            self._opening.end_now()
        elif self._over is not _nobody:
            self._fail(BY_BUG, cause=BUG)

    def __call__(self, events: int) -> None:
        """The client has left while it waited: a hello that nobody goes on with needs neither token nor tunnel."""
        self._fail("the client has left before there was an ID token", cause=BROKEN)

    def _wait(self, waiting: Waiting | None) -> None:
        """Nothing is read meanwhile; only whether the client is still there is of interest."""
        self._waiting = waiting
        if waiting is not None:
            self._poller.set(self._connection.socket.fileno(), HAS_LEFT, self)

    def _waits_no_more(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            self._tokens.leave(waiting)
            self._poller.drop(self._connection.socket.fileno())

    def _found(self, token: Token | NoToken) -> None:
        self._waits_no_more()
        if self._over is _nobody:  # ended while it waited
            return
        if isinstance(token, Token):
            self._token = token
            self._carry()
            return
        audience, account = token.identity.audience, token.identity.account
        whose = f"for {audience}" + (f" of {account}" if account else "")
        self._fail(_with_hint(f"no ID token {whose}: {token.error}", token.hint), cause=TOKEN)

    def _carry(self) -> None:
        first, self._first = self._first, b""  # not kept in thousands of tunnels
        self._opening = self._client.carry(
            url=self._url,
            local=self._connection.socket,
            first=first,
            token=self._token.token if self._token else _no_token,
            closed=self._closed,
        )

    @property
    def moved(self) -> tuple[int, int]:
        """Bytes to the workload, and from it, that are not counted yet: those of one that is open."""
        return (0, 0) if self._opening is None else self._opening.moved

    def _closed(self, ended: Ended) -> None:
        opening, self._opening = self._opening, None
        counts = self._connection.counts
        counts.sent += ended.sent
        counts.received += ended.received
        if ended.failure is None:
            if not ended.is_orderly:
                counts.errors[BROKEN] += 1
            self._connection.closed(sent=ended.sent, received=ended.received, reason=ended.reason)
            self._end()
        elif ended.status == UNAUTHENTICATED and self._token is not None and not self._is_again:
            # It may have been made for a service that was made anew, or by a clock that was wrong: once more.
            self._is_again = True
            self._first = opening.first if opening else b""
            self._wait(self._tokens.refused(self._token, self._found))
        else:
            cause = STATUS if ended.status else UNREACHABLE
            self._fail(self._why(ended.failure, status=ended.status), cause=cause, status=ended.status)

    def _why(self, failure: TunnelFailure, *, status: int) -> str:
        text = _with_hint(failure.message, failure.hint)
        if status in (UNAUTHENTICATED, 403) and self._token is not None:
            token = self._token
            until = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(token.expires))
            whose = token.email or "an account that it does not name"
            text += f"; the token was for {token.identity.audience}, of {whose}, until {until}"
        return text

    def _fail(self, reason: str, *, cause: str, status: int = 0) -> None:
        self._waits_no_more()
        self._connection.failed(reason, cause=cause, status=status)
        self._end()

    def _end(self) -> None:
        over, self._over = self._over, _nobody
        over(self)


def _no_token() -> None:
    """What is sent where no identity is asked for; the client has a source of its own elsewhere."""


def _nobody(_: Tunnel) -> None:
    """Who is told of the second end of a tunnel."""


def _with_hint(text: str, hint: str) -> str:
    return f"{text} (hint: {hint})" if hint else text
