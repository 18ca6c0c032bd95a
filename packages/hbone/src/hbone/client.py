"""Opens tunnels: finds out who may have one, by which token, and over which pool's connections."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Hashable
from typing import cast

from hbone import errors, tls
from hbone.deadlines import Deadlines
from hbone.ended import Ended
from hbone.opening import Opening
from hbone.pool import Pool
from hbone.refusal import MAX_TEXT, Refused, refusal
from hbone.session import Session
from hbone.settings import ATTEMPTS, Settings
from hbone.stream import Stream, StreamBroken
from hbone.tokens import Tokens
from hbone.tunnel import CANCEL
from hbone.unreachable import unencrypted
from hbone.urls import URL, Address

__all__ = ["Client", "Settings", "close_stream", "failure_of"]

# A token that is known, or who gives it, now or later; None: none is sent.
Token = str | Callable[[], str | Awaitable[str | None] | None]


class Client:
    """Tunnels to any number of hosts; its connections live in the task group it is given."""

    def __init__(self, *, settings: Settings, group: asyncio.TaskGroup) -> None:
        self._settings = settings
        self._group = group
        self._tokens = Tokens(settings.token_source)
        self._pools: dict[tuple[str, str], Pool] = {}
        self._tls: ssl.SSLContext | None = None
        self._deadlines: Deadlines | None = None

    def carry(
        self,
        *,
        url: URL,
        local: socket.socket,
        closed: Callable[[Ended], object],
        first: bytes = b"",
        token: Token | None = None,
    ) -> Opening:
        """Open a tunnel, send ``first``, and carry bytes both ways until it is closed. No task is made for it.

        ``local`` is a non-blocking socket. ``token`` takes the place of the source in the settings. ``closed`` is
        called once, and never before this has returned; ``end_now()`` of what is returned breaks the tunnel.
        """
        loop = asyncio.get_running_loop()
        if self._deadlines is None:
            late = cast("Callable[[Hashable], object]", Opening.late)
            self._deadlines = Deadlines(seconds=self._settings.answer_timeout, late=late)
        opening = Opening(
            url=url,
            local=local,
            first=first,
            closed=self._noting(url, closed) if token is None and self._tokens.source else closed,
            deadlines=self._deadlines,
            seconds=self._settings.answer_timeout,
        )
        try:
            self.check(url)
            found = self._tokens.ready(url.audience) if token is None else token() if callable(token) else token
        except errors.Failure as failure:
            loop.call_soon(opening.fail, failure)
            return opening
        if found is None or isinstance(found, str):
            self._start(opening, url, found)
        else:
            self._group.create_task(self._start_later(opening, url, found, is_ours=token is None))
        return opening

    def _noting(self, url: URL, closed: Callable[[Ended], object]) -> Callable[[Ended], object]:
        """The same, and the next tunnel has a new token when this one's was not accepted."""

        def noted(ended: Ended) -> None:
            if ended.status == 401:
                self._tokens.forget(url.audience)
            closed(ended)

        return noted

    def _start(self, opening: Opening, url: URL, token: str | None) -> None:
        try:
            if token:
                self._check_secrecy(url)
            opening.start(self._pool(url), token)
        except errors.Failure as failure:
            asyncio.get_running_loop().call_soon(opening.fail, failure)

    async def _start_later(self, opening: Opening, url: URL, finding: Awaitable[str | None], *, is_ours: bool) -> None:
        try:
            token = await finding
        except errors.Failure as failure:
            if not opening.is_over:
                opening.fail(failure)
            return
        self._start(opening, url, token)

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
            stream = await _Stream(url=url, headers=headers).find(self._pool(url))
            try:
                return await self._answered(stream, url=url, token=token)
            except StreamBroken as error:
                reason = str(error)
                # Not a byte of payload was sent, so a tunnel may be asked for again when its connection is gone.
                if not (error.is_safe or stream.is_lost):
                    break
        raise errors.Unreachable(
            f"no tunnel to {url}: {reason}", hint="the server or its front ended it; see their logs"
        )

    async def _answered(self, stream: Stream, *, url: URL, token: str | None) -> Stream:
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
        raise Refused(status=status, failure=refusal(url, status=status, text=text, token=token))

    def check(self, url: URL) -> None:
        """Find out what can be known without dialling.

        Raises:
            Misconfigured: a token would leave this machine unencrypted, or the root certificates cannot be read.
        """
        if url.scheme == "https" and self._tls is None:
            self._tls = tls.client_context(ca_file=self._settings.ca_file)
        if self._tokens.source:
            self._check_secrecy(url)

    def _check_secrecy(self, url: URL) -> None:
        address = self._address(url)
        if url.scheme == "http" and not address.is_loopback:
            raise unencrypted(address)

    async def close(self) -> None:
        """Close all connections, with all tunnels in them."""
        if self._deadlines is not None:
            self._deadlines.close()
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


class _Stream:
    """Who waits for a connection, and opens a stream in it at once: there might be no room soon after."""

    def __init__(self, *, url: URL, headers: tuple[tuple[str, str], ...]) -> None:
        self._url = url
        self._headers = headers
        self._opened: asyncio.Future[Stream] = asyncio.get_running_loop().create_future()

    async def find(self, pool: Pool) -> Stream:
        """Raises Failure."""
        pool.ask(self)
        return await self._opened

    @property
    def is_over(self) -> bool:
        return self._opened.done()

    def take(self, session: Session) -> None:
        url = self._url
        stream = session.open(scheme=url.scheme, authority=url.authority, path=url.path, headers=self._headers)
        self._opened.set_result(stream)

    def fail(self, failure: errors.Failure) -> None:
        self._opened.set_exception(failure)


def close_stream(stream: Stream) -> None:
    """The caller is done with the stream: what is open of it is cancelled."""
    stream.reset(CANCEL)
    stream.release()


def failure_of(error: Refused | errors.Failure) -> errors.Failure:
    """What a person is told of a tunnel that did not come about."""
    return error.failure if isinstance(error, Refused) else error


async def _text(stream: Stream) -> str:
    """The beginning of a refusal's body."""
    text = b""
    while len(text) < MAX_TEXT and (data := await stream.receive()):
        text += data
        stream.acknowledge(len(data))
    return text.decode(errors="replace")
