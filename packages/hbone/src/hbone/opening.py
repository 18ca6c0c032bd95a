"""One tunnel of the client before it runs: asked for, and again elsewhere while nothing was sent, then carried."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence

from hbone import errors
from hbone.carry import Carry
from hbone.deadlines import Deadlines
from hbone.ended import Ended
from hbone.events import Fields
from hbone.flow import Flow
from hbone.pool import Pool
from hbone.refusal import MAX_TEXT, refusal
from hbone.session import Session
from hbone.settings import ATTEMPTS
from hbone.stream import ENDED_NOW, StreamBroken
from hbone.tunnel import CANCEL
from hbone.urls import URL


class Opening:
    """The stream's party until it is answered. ``closed`` is called once, by whoever carries it on to its end."""

    __slots__ = (
        "_attempts",
        "_carry",
        "_closed",
        "_deadlines",
        "_flow",
        "_is_informed",
        "_local",
        "_pool",
        "_seconds",
        "_session",
        "_status",
        "_text",
        "_token",
        "_url",
        "first",
        "is_over",
    )  # fmt: skip

    def __init__(
        self,
        *,
        url: URL,
        local: socket.socket,
        first: bytes,
        closed: Callable[[Ended], object],
        deadlines: Deadlines,
        seconds: float,
    ) -> None:
        """``deadlines`` are those of answers, which last ``seconds``. ``first`` stays here until it is carried."""
        self.is_over = False
        self._url = url
        self._local = local
        self.first = first
        self._closed = closed
        self._deadlines = deadlines
        self._seconds = seconds
        self._pool: Pool | None = None
        self._token: str | None = None
        self._attempts = 0
        self._is_informed = False  # of the server's limit, when it was asked
        self._session: Session | None = None
        self._flow: Flow | None = None
        self._status = 0
        self._text = b""
        self._carry: Carry | None = None

    def start(self, pool: Pool, token: str | None) -> None:
        if not self.is_over:
            self._pool, self._token = pool, token
            self._deadlines.add(self)
            pool.ask(self)

    def take(self, session: Session) -> None:
        assert self._pool is not None  # noqa: S101 - whose it is
        self._session = session
        self._is_informed = session.core.is_greeted
        self._flow = session.ask(self._pool.request(path=self._url.path, token=self._token), self)

    def end_now(self) -> None:
        """Break it, whatever it is at."""
        if self._carry is not None:
            self._carry.end_now()
        elif not self.is_over:
            self._give_up_stream()
            self.fail(errors.Unreachable(f"no tunnel to {self._url}: {ENDED_NOW}"))

    def late(self) -> None:
        """The answer has not come in time."""
        if self.is_over:
            return
        if self._session is not None:
            # A dead connection looks like this for a quarter of an hour, until TCP gives up.
            self._session.retire()
        self._give_up_stream()
        what = f"no answer from {self._url} within {self._seconds:g} s"
        self.fail(errors.DeadlinePassed(what, hint="see the server's log"))

    def fail(self, failure: errors.Failure) -> None:
        self.is_over = True
        self._deadlines.discard(self)
        self._closed(Ended(reason=failure.message, status=self._status, failure=failure))

    def opened(self, status: int, fields: Fields) -> None:
        session = self._session
        flow = self._flow
        if self.is_over or session is None or flow is None:
            return
        self._status = status
        if status != 200:
            return
        self.is_over = True
        self._deadlines.discard(self)
        carry = self._carry = Carry(
            session=session, flow=flow, local=self._local, first=self.first, closed=self._carried
        )
        self.first = b""
        session.streams[flow.number] = carry
        carry.start()

    @property
    def moved(self) -> tuple[int, int]:
        """Bytes from the local end, and to it, so far."""
        return (0, 0) if self._carry is None else (self._carry.from_local, self._carry.to_local)

    def _carried(self, carry: Carry) -> None:
        ended = Ended(
            reason=carry.reason,
            sent=carry.from_local,
            received=carry.to_local,
            status=self._status,
            is_orderly=carry.is_orderly,
        )
        self._closed(ended)

    def received(self, pieces: Sequence[memoryview]) -> None:
        """More of what a refusal says."""
        session, flow = self._session, self._flow
        if session is None or flow is None:
            return
        for piece in pieces:
            self._text += piece[:MAX_TEXT]
            session.core.acknowledge(flow.number, len(piece))
        if len(self._text) >= MAX_TEXT:
            self._refused()

    def ended(self) -> None:
        if self._status:
            self._refused()
        else:
            self._broken(StreamBroken("ended without an answer"))

    def broke(self, error: StreamBroken) -> None:
        if self._status:
            self._refused()
        else:
            self._broken(error)

    def _refused(self) -> None:
        if self.is_over:
            return
        self._give_up_stream()
        text = self._text.decode(errors="replace")
        self.fail(refusal(self._url, status=self._status, text=text, token=self._token))

    def _broken(self, error: StreamBroken) -> None:
        if self.is_over:
            return
        session = self._session
        # Not a byte of payload was sent, so a tunnel may be asked for again when its connection is gone.
        may_repeat = error.is_safe or (session is not None and session.is_over)
        # Refused for a limit that nobody could know: that says nothing of the next time.
        self._attempts += self._is_informed or not error.is_refused
        self._give_up_stream()
        if may_repeat and self._attempts < ATTEMPTS and self._pool is not None:
            self._pool.ask(self)
            return
        hint = "the server or its front ended it; see their logs"
        self.fail(errors.Unreachable(f"no tunnel to {self._url}: {error}", hint=hint))

    def _give_up_stream(self) -> None:
        session, self._session = self._session, None
        if session is not None and self._flow is not None:
            session.core.reset(self._flow.number, CANCEL)
            session.forget(self._flow.number)

    def has_room(self) -> None:
        """Nothing is sent before the answer."""

    def informed(self, status: int, fields: Fields) -> None:
        """Not the answer yet."""

    def ends_with(self, trailers: Fields) -> None:
        """A tunnel has none."""
