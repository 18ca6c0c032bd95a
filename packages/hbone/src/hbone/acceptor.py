"""Accepts local TCP connections until told to stop, and runs one task for each."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Awaitable, Callable

from hbone import sockets
from hbone.stop import Stop

log = logging.getLogger(__name__)

# Of accept(2): what is wrong with the machine for now, not with the listener.
PASSING = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
PAUSE = 0.1  # seconds, until files may have been closed


async def accept(
    listener: socket.socket, *, stop: Stop, serve: Callable[[sockets.Socket, str], Awaitable[None]]
) -> None:
    """Serve connections until ``stop`` drains; return when the last one is done. Closes the listener."""
    async with asyncio.TaskGroup() as group:
        accepting = group.create_task(_accept(listener, group=group, serve=serve))
        try:
            await stop.draining.wait()
        finally:
            accepting.cancel()
            await asyncio.wait([accepting])  # the loop must have let go of the listener before it is closed
            listener.close()


async def _accept(
    listener: socket.socket, *, group: asyncio.TaskGroup, serve: Callable[[sockets.Socket, str], Awaitable[None]]
) -> None:
    loop = asyncio.get_running_loop()
    while True:
        try:
            connected, peer = await loop.sock_accept(listener)
        except OSError as error:
            if error.errno not in PASSING:
                continue  # this one connection was gone before it was taken (accept(2))
            log.warning("cannot accept", extra={"fields": {"reason": error.strerror}})
            await asyncio.sleep(PAUSE)
            continue
        group.create_task(_serve(connected, peer=f"{peer[0]}:{peer[1]}", serve=serve))


async def _serve(
    connected: socket.socket, *, peer: str, serve: Callable[[sockets.Socket, str], Awaitable[None]]
) -> None:
    local = sockets.Socket(connected)
    try:
        await serve(local, peer)
    except Exception as error:  # noqa: BLE001 - a bug that one client meets must not end the others' tunnels
        log.error("a bug ended a connection", extra={"fields": {"peer": peer, "reason": repr(error)}})
    finally:
        local.close(is_orderly=False)  # whoever served it in order has closed it already
