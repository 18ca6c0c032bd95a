"""Accepts TCP connections until told to stop, and runs one task for each."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import resource
import socket
from collections.abc import Awaitable, Callable

from hbone import sockets
from hbone.doorway import Doorway, Peer
from hbone.shares import Shares
from hbone.stop import Stop

log = logging.getLogger(__name__)

OWN_FILES = 64  # what the process itself needs: the rest is for connections, two for each

Serve = Callable[[socket.socket, str], Awaitable[None]]


async def accept(
    listener: socket.socket,
    *,
    stop: Stop,
    serve: Serve,
    shares: Shares | None = None,
    opened: Callable[[Doorway], object] | None = None,
) -> None:
    """Serve connections until ``stop`` drains; return when the last one is done. Closes the listener.

    ``serve`` is given a connection and its peer's name. As many run at once as there are files for: the others wait
    in the kernel, as there is then no file to lead them on by either. ``opened`` is given the doorway.
    """
    tasks: set[asyncio.Task[None]] = set()

    def arrived(connected: socket.socket, peer: Peer) -> None:
        task = group.create_task(_serve(connected, peer=f"{peer[0]}:{peer[1]}", serve=serve))
        tasks.add(task)
        task.add_done_callback(over)

    def over(task: asyncio.Task[None]) -> None:
        tasks.discard(task)
        doorway.left()

    room = max(1, (raise_file_limit() - OWN_FILES) // 2)
    async with asyncio.TaskGroup() as group:
        doorway = Doorway(listener, room=room, count=lambda: len(tasks), arrived=arrived, shares=shares)
        doorway.open()
        if opened is not None:
            opened(doorway)
        try:
            await stop.draining.wait()
        finally:
            doorway.close()


def raise_file_limit() -> int:
    """Open as many files as this user may; return how many that is."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):  # macOS has a limit of its own below the hard one
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    return 2**20 if soft == resource.RLIM_INFINITY else soft


async def _serve(connected: socket.socket, *, peer: str, serve: Serve) -> None:
    try:
        await serve(connected, peer)
    except Exception as error:  # noqa: BLE001 - a bug that one client meets must not end the others' tunnels
        log.error("a bug ended a connection", extra={"fields": {"peer": peer, "reason": repr(error)}})
    finally:
        # Whoever served it in order has closed it already.
        sockets.close(connected, is_orderly=False)
