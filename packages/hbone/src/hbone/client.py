"""Opens tunnels: pools connections by origin, obeys the server's limit of streams, dials again what is gone."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import ssl
from dataclasses import dataclass

from hbone import errors, sockets, tls
from hbone.link import Link
from hbone.poller import of_loop
from hbone.refusal import MAX_TEXT, Refused, refusal
from hbone.session import Session
from hbone.stream import Stream, StreamBroken
from hbone.tokens import Source, Tokens
from hbone.tunnel import CANCEL, Connection
from hbone.urls import URL, Address

log = logging.getLogger(__name__)

CONNECT_TIMEOUT = 10.0  # seconds for TCP and TLS
# Seconds until the server answers a request: a container that starts from nothing has to come up first.
ANSWER_TIMEOUT = 60.0
ATTEMPTS = 3


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How tunnels are opened."""

    token_source: Source
    token_header: str = "authorization"
    ca_file: str | None = None
    connect_to: Address | None = None
    connect_timeout: float = CONNECT_TIMEOUT
    answer_timeout: float = ANSWER_TIMEOUT


class Client:
    """Tunnels to any number of hosts; its connections live in the task group it is given."""

    def __init__(self, *, settings: Settings, group: asyncio.TaskGroup) -> None:
        self._settings = settings
        self._group = group
        self._tokens = Tokens(settings.token_source)
        self._pools: dict[tuple[str, str], Pool] = {}
        self._tls: ssl.SSLContext | None = None

    async def open(self, url: URL) -> Stream:
        """A tunnel whose server has answered 200; the caller closes it by ``close_stream``.

        Raises:
            Refused: the server answered otherwise.
            Failure: there is no token, or the server cannot be reached, or not in time.
        """
        self.check(url)
        token = await self._tokens.find(url.audience)
        headers = ((self._settings.token_header, f"Bearer {token}"),) if token else ()
        reason = ""
        for _ in range(ATTEMPTS):
            stream = await self._pool(url).open(path=url.path, headers=headers)
            try:
                return await self._answered(stream, url=url, has_token=bool(token))
            except StreamBroken as error:
                reason = str(error)
                # Not a byte of payload was sent, so a tunnel may be asked for again when its connection is gone.
                if not (error.is_safe or stream.is_lost):
                    break
        raise errors.Unreachable(
            f"no tunnel to {url}: {reason}", hint="the server or its front ended it; see their logs"
        )

    async def _answered(self, stream: Stream, *, url: URL, has_token: bool) -> Stream:
        try:
            async with asyncio.timeout(self._settings.answer_timeout):
                status = await stream.status()
                if status == 200:
                    return stream
                text = await _text(stream)
                stream.end()
        except TimeoutError as error:
            close_stream(stream)
            # A dead connection looks like this for a quarter of an hour, until TCP gives up.
            stream.retire()
            what = f"no answer from {url} within {self._settings.answer_timeout:g} s"
            raise errors.DeadlinePassed(what, hint="see the server's log") from error
        except BaseException:
            close_stream(stream)
            raise
        close_stream(stream)
        if status == 401:
            self._tokens.forget(url.audience)
        raise Refused(status=status, failure=refusal(url, status=status, text=text, has_token=has_token))

    def check(self, url: URL) -> None:
        """Find out what can be known without dialling.

        Raises:
            Misconfigured: a token would leave this machine unencrypted, or the root certificates cannot be read.
        """
        address = self._address(url)
        if url.scheme == "https" and self._tls is None:
            self._tls = tls.client_context(ca_file=self._settings.ca_file)
        if self._tokens.source and url.scheme == "http" and not address.is_loopback:
            raise errors.Misconfigured(
                f"an ID token is not sent over plain http to {address}", hint="use https, or give no token"
            )

    async def close(self) -> None:
        """Close all connections, with all tunnels in them."""
        async with asyncio.TaskGroup() as group:
            for pool in self._pools.values():
                group.create_task(pool.close())

    def _address(self, url: URL) -> Address:
        return self._settings.connect_to or Address(host=url.host, port=url.port)

    def _pool(self, url: URL) -> Pool:
        key = (url.scheme, url.authority)
        if key not in self._pools:
            context = self._tls if url.scheme == "https" else None
            self._pools[key] = Pool(
                url=url, address=self._address(url), settings=self._settings, context=context, group=self._group
            )
        return self._pools[key]


class Pool:
    """The connections to one origin."""

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
        self._choosing = asyncio.Lock()  # a hundred tunnels at once need one connection, not a hundred

    async def open(self, *, path: str, headers: tuple[tuple[str, str], ...]) -> Stream:
        """Ask for a tunnel, on a connection that has room for it or on a new one. Raises Failure."""
        try:
            # Around the lock too: who waits for another's dial fails when that does, not one after the other.
            async with asyncio.timeout(self._settings.connect_timeout), self._choosing:
                self._sessions = [session for session in self._sessions if not session.is_over]
                session = next((session for session in self._sessions if session.has_room), None)
                if session is None:
                    session = await self._connect()
        except TimeoutError as error:
            what = f"{self._what}: no connection within {self._settings.connect_timeout:g} s"
            raise errors.DeadlinePassed(what, hint="is the address right, and may this machine dial it?") from error
        url = self._url
        return session.open(scheme=url.scheme, authority=url.authority, path=path, headers=headers)

    async def close(self) -> None:
        for session in self._sessions:
            await session.close()

    async def _connect(self) -> Session:
        link = await self._dial()
        session = Session(link=link, core=Connection(client=True), hello=self._settings.answer_timeout)
        self._sessions.append(session)
        self._group.create_task(_keep(session))
        return session

    @property
    def _what(self) -> str:
        return f"cannot reach {self._url.scheme}://{self._url.authority} at {self._address}"

    async def _dial(self) -> Link:
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
            hint = "--ca-file (KRUN_CA_FILE) names the roots to trust; the certificate must be for the URL's host"
            return errors.Unreachable(f"{self._what}: TLS: {error.verify_message}", hint=hint)
        if isinstance(error, ssl.SSLError):
            return errors.Unreachable(f"{self._what}: TLS failed: {error.reason or error}", hint="is it a TLS port?")
        if isinstance(error, socket.gaierror):
            return errors.Unreachable(f"{self._what}: {error.strerror}", hint="is the host's name right?")
        reason = os.strerror(error.errno) if error.errno else str(error)
        return errors.Unreachable(f"{self._what}: {reason}", hint="does the server listen there?")


def close_stream(stream: Stream) -> None:
    """The caller is done with the stream: what is open of it is cancelled."""
    stream.reset(CANCEL)
    stream.release()


def failure_of(error: Refused | errors.Failure) -> errors.Failure:
    """What a person is told of a tunnel that did not come about."""
    return error.failure if isinstance(error, Refused) else error


async def _keep(session: Session) -> None:
    try:
        await session.run()
    except Exception as error:  # noqa: BLE001 - a bug that one server meets must not end the tunnels to others
        log.error("a bug ended a connection", extra={"fields": {"reason": repr(error)}})
    finally:
        await session.close()


async def _text(stream: Stream) -> str:
    """The beginning of a refusal's body."""
    text = b""
    while len(text) < MAX_TEXT and (data := await stream.receive()):
        text += data
        stream.acknowledge(len(data))
    return text.decode(errors="replace")
