"""The connections to one origin: obeys the server's limit of streams, dials again what is gone."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections import deque
from typing import Protocol

from hbone import blocks, errors, sockets, tls
from hbone.link import Link
from hbone.poller import of_loop
from hbone.session import Session
from hbone.settings import Settings
from hbone.stream import ENDED_NOW
from hbone.tunnel import UNKNOWN_LIMIT, Connection
from hbone.unreachable import no_streams, other_protocol, too_late, unreachable
from hbone.urls import URL, Address

log = logging.getLogger(__name__)

# Streams of a new connection before its server has said how many it takes: the others wait for that.
FIRST_STREAMS = 8
MAX_BLOCKS = 64  # headers of requests that are remembered


class Waiter(Protocol):
    """Who wants a stream."""

    @property
    def is_over(self) -> bool:
        """It wants none any more."""

    def take(self, session: Session) -> None:
        """This connection has room for it."""

    def fail(self, failure: errors.Failure) -> None:
        """There is no connection."""


class Pool:
    """The connections; they live in the task group it is given."""

    def __init__(
        self,
        *,
        url: URL,
        address: Address,
        settings: Settings,
        context: ssl.SSLContext | None,
        group: asyncio.TaskGroup,
    ) -> None:
        self._url = url
        self._address = address
        self._settings = settings
        self._group = group
        self._tls = context
        self._sessions: list[Session] = []
        self._waiting: deque[Waiter] = deque()
        self._dials = 0  # under way
        self._blocks: dict[tuple[str, str | None], bytes] = {}

    def ask(self, waiter: Waiter) -> None:
        """Give it a connection that has room for one more stream, now or when there is one."""
        session = self._free()
        if session is not None:
            waiter.take(session)
        else:
            self._waiting.append(waiter)
            self._dial_more()

    def request(self, *, path: str, token: str | None) -> bytes:
        """The headers that ask for a tunnel; the token is marked as never to be put into a table."""
        block = self._blocks.get((path, token))
        if block is None:
            if len(self._blocks) >= MAX_BLOCKS:
                self._blocks.clear()
            url = self._url
            pseudo = ((":method", "POST"), (":scheme", url.scheme), (":authority", url.authority), (":path", path))
            secrets = ((self._settings.token_header, f"Bearer {token}"),) if token else ()
            block = blocks.write(blocks.encoded(pseudo)) + blocks.write(blocks.encoded(secrets), never_indexed=True)
            self._blocks[path, token] = block
        return block

    async def close(self) -> None:
        """Close all connections, with all tunnels in them, and those that wait for one."""
        self._fail(errors.Unreachable(f"{self._what}: {ENDED_NOW}"))
        async with asyncio.TaskGroup() as group:
            for session in self._sessions:
                group.create_task(session.close())

    def _free(self) -> Session | None:
        for session in self._sessions:
            if session.has_room and (session.core.is_greeted or len(session.streams) < FIRST_STREAMS):
                return session
        return None

    def _dial_more(self) -> None:
        # A hundred tunnels at once need one connection, not a hundred.
        new = sum(not (session.core.is_greeted or session.is_over) for session in self._sessions)
        while (self._dials + new) * UNKNOWN_LIMIT < len(self._waiting):
            self._dials += 1
            self._group.create_task(self._dial())

    def _serve(self) -> None:
        """Give those who wait what is free."""
        if not self._waiting:
            return
        if any(session.core.is_greeted and not session.core.limit for session in self._sessions):
            self._fail(no_streams(self._what))
        while self._waiting:
            waiter = self._waiting[0]
            if not waiter.is_over:
                session = self._free()
                if session is None:
                    self._dial_more()
                    return
                self._waiting.popleft()
                waiter.take(session)
            else:
                self._waiting.popleft()

    async def _dial(self) -> None:
        try:
            async with asyncio.timeout(self._settings.connect_timeout):
                link = await self._link()
        except TimeoutError:
            self._fail(too_late(self._what, seconds=self._settings.connect_timeout))
            return
        except errors.Failure as failure:
            self._fail(failure)
            return
        finally:
            self._dials -= 1
        await self._keep(Session(link=link, core=Connection(client=True), hello=self._settings.answer_timeout))

    def _fail(self, failure: errors.Failure) -> None:
        """Who waits for another's dial fails when that does, not one after the other."""
        waiting, self._waiting = self._waiting, deque()
        for waiter in waiting:
            if not waiter.is_over:
                waiter.fail(failure)

    async def _keep(self, session: Session) -> None:
        self._sessions.append(session)
        session.on_room(self._serve)
        try:
            self._serve()
            await session.run()
        except Exception as error:  # noqa: BLE001 - a bug that one server meets must not end the tunnels to others
            log.error("a bug ended a connection", extra={"fields": {"reason": repr(error)}})
        finally:
            with contextlib.suppress(ValueError):
                self._sessions.remove(session)
            await session.close()

    @property
    def _what(self) -> str:
        return f"cannot reach {self._url.scheme}://{self._url.authority} at {self._address}"

    async def _link(self) -> Link:
        try:
            connected = await sockets.reach(self._address.host, self._address.port)
        except OSError as error:
            raise unreachable(error, what=self._what) from error
        poller = of_loop()
        if self._tls is None:
            return Link(connected, poller=poller)
        from hbone.link_tls import TlsLink  # late, as the other way needs no OpenSSL

        link = TlsLink(connected, poller=poller, context=self._tls, name=self._url.host)
        try:
            await link.shake_hands()
        except OSError as error:
            link.abort()
            raise unreachable(error, what=self._what) from error
        except BaseException:
            link.abort()
            raise
        if link.protocol != tls.ALPN:
            link.abort()
            raise other_protocol(self._what)
        return link
