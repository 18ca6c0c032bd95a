"""The connections to one origin: obeys the server's limit of streams, dials again what is gone."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import ssl
from collections import deque
from dataclasses import dataclass
from typing import Protocol

from hbone import blocks, errors, sockets, tls
from hbone.link import Link
from hbone.poller import of_loop
from hbone.session import Session
from hbone.stream import ENDED_NOW
from hbone.tokens import Source
from hbone.tunnel import UNKNOWN_LIMIT, Connection
from hbone.urls import URL, Address

log = logging.getLogger(__name__)

CONNECT_TIMEOUT = 10.0  # seconds for TCP and TLS
# Seconds until the server answers a request: a container that starts from nothing has to come up first.
ANSWER_TIMEOUT = 60.0
# Streams of a new connection before its server has said how many it takes: the others wait for that.
FIRST_STREAMS = 8
MAX_BLOCKS = 64  # headers of requests that are remembered
# Why OpenSSL does not accept a certificate (x509_vfy.h): not yet, no more; other host, other address.
OUT_OF_TIME, FOR_ANOTHER = (9, 10), (62, 64)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How tunnels are opened."""

    token_source: Source
    token_header: str = "authorization"
    ca_file: str | None = None
    connect_to: Address | None = None
    connect_timeout: float = CONNECT_TIMEOUT
    answer_timeout: float = ANSWER_TIMEOUT


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
            self._fail(errors.Unreachable(f"{self._what}: it takes no streams", hint="see the server's settings"))
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
            what = f"{self._what}: no connection within {self._settings.connect_timeout:g} s"
            self._fail(errors.DeadlinePassed(what, hint="is the address right, and may this machine dial it?"))
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
        except TimeoutError as error:  # the kernel's own
            raise errors.DeadlinePassed(f"{self._what}: {error.strerror}", hint="may this machine dial it?") from error
        except OSError as error:
            raise self._unreachable(error) from error
        poller = of_loop()
        if self._tls is None:
            return Link(connected, poller=poller)
        from hbone.link_tls import TlsLink  # late, as the other way needs no OpenSSL

        link = TlsLink(connected, poller=poller, context=self._tls, name=self._url.host)
        try:
            await link.shake_hands()
        except OSError as error:
            link.abort()
            raise self._unreachable(error) from error
        except BaseException:
            link.abort()
            raise
        if link.protocol != tls.ALPN:
            link.abort()
            raise errors.Unreachable(f"{self._what}: it does not speak HTTP/2", hint="the port must offer h2 by ALPN")
        return link

    def _unreachable(self, error: OSError) -> errors.Unreachable:
        if isinstance(error, ssl.SSLCertVerificationError):
            hint = "--ca-file (KRUN_CA_FILE) names the roots to trust"
            if error.verify_code in OUT_OF_TIME:
                hint = "its certificate has to be renewed there, or this machine's clock is wrong"
            elif error.verify_code in FOR_ANOTHER:
                hint = "the URL's host must be one of the certificate; --connect-to only says where it is dialled"
            return errors.Unreachable(f"{self._what}: TLS: {error.verify_message}", hint=hint)
        if isinstance(error, ssl.SSLError):
            return errors.Unreachable(f"{self._what}: TLS failed: {error.reason or error}", hint="is it a TLS port?")
        if isinstance(error, socket.gaierror):
            is_silent = error.errno == socket.EAI_AGAIN
            hint = (
                "no name server answers; is this machine on the network?" if is_silent else "is the host's name right?"
            )
            return errors.Unreachable(f"{self._what}: {error.strerror}", hint=hint)
        reason = os.strerror(error.errno) if error.errno else str(error)
        return errors.Unreachable(f"{self._what}: {reason}", hint="does the server listen there?")
