"""Tunnels of a worker: connections to servers are pooled by origin, and a tunnel is a stream of one of them."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass

from hbone import errors, sockets, tls
from hbone.client import ATTEMPTS, Pool, Settings, close_stream
from hbone.refusal import MAX_TEXT, Refused, refusal
from hbone.relay import Relay
from hbone.stream import Stream, StreamBroken
from hbone.urls import URL, Address


@dataclass(frozen=True, kw_only=True, slots=True)
class Ended:
    """How a tunnel ended; with a failure there was none, and the local socket is still open."""

    sent: int = 0
    received: int = 0
    status: int = 0
    reason: str = ""
    is_orderly: bool = True
    failure: errors.Failure | None = None


class Handle:
    """A tunnel that runs."""

    def __init__(self, task: asyncio.Task[None]) -> None:
        self._task = task

    def end_now(self) -> None:
        """Break it."""
        self._task.cancel()


class Carrier:
    """The tunnels; their tasks live in the group."""

    def __init__(self, *, settings: Settings, group: asyncio.TaskGroup) -> None:
        self._settings = settings
        self._group = group
        self._pools: dict[tuple[str, str], Pool] = {}
        self._tls: ssl.SSLContext | None = None

    def carry(
        self, *, url: URL, local: socket.socket, first: bytes, token: str | None, closed: Callable[[Ended], None]
    ) -> Handle:
        """Open a tunnel, send ``first``, relay until both are done, and close both."""
        return Handle(self._group.create_task(self._carry(url, local, first, token, closed)))

    async def close(self) -> None:
        for pool in self._pools.values():
            await pool.close()

    async def _carry(
        self, url: URL, local: socket.socket, first: bytes, token: str | None, closed: Callable[[Ended], None]
    ) -> None:
        try:
            stream = await self._open(url, token)
        except Refused as error:
            closed(Ended(status=error.status, failure=error.failure))
            return
        except errors.Failure as error:
            closed(Ended(failure=error))
            return
        end = sockets.Socket(local)
        relay = Relay(stream=stream, local=end, first=first)
        try:
            await relay.run()
        finally:
            close_stream(stream)
            end.close(is_orderly=relay.is_orderly)
            closed(
                Ended(
                    sent=relay.from_local,
                    received=relay.to_local,
                    status=200,
                    reason=relay.reason,
                    is_orderly=relay.is_orderly,
                )
            )

    async def _open(self, url: URL, token: str | None) -> Stream:
        headers = ((self._settings.token_header, f"Bearer {token}"),) if token else ()
        reason = ""
        for _ in range(ATTEMPTS):
            stream = await self._pool(url).open(path=url.path, headers=headers)
            try:
                async with asyncio.timeout(self._settings.answer_timeout):
                    status = await stream.status()
                    if status == 200:
                        return stream
                    text = await _text(stream)
            except StreamBroken as error:
                close_stream(stream)
                reason = str(error)
                if error.is_safe or stream.is_lost:
                    continue
                break
            except TimeoutError as error:
                close_stream(stream)
                stream.retire()
                what = f"no answer from {url} within {self._settings.answer_timeout:g} s"
                raise errors.DeadlinePassed(what, hint="see the server's log") from error
            close_stream(stream)
            raise Refused(status=status, failure=refusal(url, status=status, text=text, has_token=bool(token)))
        hint = "the server or its front ended it; see their logs"
        raise errors.Unreachable(f"no tunnel to {url}: {reason}", hint=hint)

    def _pool(self, url: URL) -> Pool:
        key = (url.scheme, url.authority)
        if key not in self._pools:
            if url.scheme == "https" and self._tls is None:
                self._tls = tls.client_context(ca_file=self._settings.ca_file)
            self._pools[key] = Pool(
                url=url,
                address=self._settings.connect_to or Address(host=url.host, port=url.port),
                settings=self._settings,
                context=self._tls if url.scheme == "https" else None,
                group=self._group,
            )
        return self._pools[key]


async def _text(stream: Stream) -> str:
    """The beginning of a refusal's body."""
    text = b""
    while len(text) < MAX_TEXT and (data := await stream.receive()):
        text += data
        stream.acknowledge(len(data))
    return text.decode(errors="replace")
