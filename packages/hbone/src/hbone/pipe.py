"""One tunnel for this process's stdin and stdout: what ssh calls a ProxyCommand."""

from __future__ import annotations

import asyncio
import os

from hbone import errors, stop
from hbone.client import Client, Settings, close_stream
from hbone.refusal import Refused
from hbone.relay import Relay
from hbone.stdio import Stdio
from hbone.urls import URL


def pipe(*, url: URL, settings: Settings) -> int:
    """Run the tunnel until the other side ends; the exit status is 0.

    Raises:
        Failure: there is no tunnel, or it broke.
    """
    _hold_standard_streams()
    stop.run(_pipe(url=url, settings=settings))
    return 0


def _hold_standard_streams() -> None:
    """Let no socket of ours become stdin or stdout, when a shell has closed them (``<&-``)."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            # The lowest free number is taken. An empty stdin is one; what would be written to stdout must not be lost
            # without a word, so it is opened for reading too.
            os.open(os.devnull, os.O_RDONLY)


async def _pipe(*, url: URL, settings: Settings) -> int:
    async with asyncio.TaskGroup() as group:
        client = Client(settings=settings, group=group)
        try:
            stream = await client.open(url)
        except Refused as refused:
            raise refused.failure from None
        relay = Relay(stream=stream, local=Stdio(), ends_with_peer=True)
        await relay.run()
        close_stream(stream)
        await client.close()
    _check(url, relay)
    return 0


def _check(url: URL, relay: Relay) -> None:
    if relay.local_error is not None:
        what = relay.local_error.strerror or str(relay.local_error)
        raise errors.Unreachable(f"stdin or stdout failed: {what}", hint="the program at the other end is gone")
    if not relay.is_orderly:
        raise errors.Unreachable(f"the tunnel to {url} broke: {relay.reason}", hint="see the server's log")
