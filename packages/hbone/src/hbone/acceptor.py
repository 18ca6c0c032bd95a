"""Accepts TCP connections until told to stop, and runs one task for each."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import resource
import socket
from collections.abc import Awaitable, Callable

from hbone import sockets
from hbone.stop import Stop

log = logging.getLogger(__name__)

PAUSE = 0.1  # seconds, until files may have been closed
QUIET = 10.0  # seconds between two lines that say the same
OWN_FILES = 64  # what the process itself needs: the rest is for connections, two for each

Serve = Callable[[socket.socket, str], Awaitable[None]]


async def accept(listener: socket.socket, *, stop: Stop, serve: Serve) -> None:
    """Serve connections until ``stop`` drains; return when the last one is done. Closes the listener.

    ``serve`` is given a connection and its peer's name. As many run at once as there are files for: the others wait
    in the kernel, as there is then no file to lead them on by either.
    """
    room = asyncio.Semaphore(max(1, (raise_file_limit() - OWN_FILES) // 2))
    async with asyncio.TaskGroup() as group:
        accepting = group.create_task(_accept(listener, group=group, serve=serve, room=room))
        try:
            await stop.draining.wait()
        finally:
            accepting.cancel()
            await asyncio.wait([accepting])  # the loop must have let go of the listener before it is closed
            listener.close()


def raise_file_limit() -> int:
    """Open as many files as this user may; return how many that is."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):  # macOS has a limit of its own below the hard one
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    return 2**20 if soft == resource.RLIM_INFINITY else soft


async def _accept(listener: socket.socket, *, group: asyncio.TaskGroup, serve: Serve, room: asyncio.Semaphore) -> None:
    loop = asyncio.get_running_loop()
    said = -QUIET
    while True:
        await room.acquire()
        try:
            connected, peer = await _next(listener)
        except OSError as error:
            room.release()
            if loop.time() - said >= QUIET and not isinstance(error, ConnectionAbortedError):
                said = loop.time()
                log.warning("cannot accept", extra={"fields": {"reason": error.strerror}})
            # Whatever accept(2) says, some of it is said again at once, without ever waiting: never try in a row.
            await asyncio.sleep(PAUSE)
            continue
        except BaseException:
            room.release()
            raise
        task = group.create_task(_serve(connected, peer=f"{peer[0]}:{peer[1]}", serve=serve))
        task.add_done_callback(lambda _: room.release())
        await asyncio.sleep(0)  # a full backlog never waits either: the others have their turn


async def _next(listener: socket.socket) -> tuple[socket.socket, tuple[str, int]]:
    """Wait for a connection. Cancelled, it has taken none: the loop's own sock_accept() may lose one then."""
    loop = asyncio.get_running_loop()
    while True:
        try:
            connected, peer = listener.accept()
        except BlockingIOError:
            ready = asyncio.Event()
            loop.add_reader(listener, ready.set)
            try:
                await ready.wait()
            finally:
                loop.remove_reader(listener)
        else:
            connected.setblocking(False)
            return connected, peer[:2]


async def _serve(connected: socket.socket, *, peer: str, serve: Serve) -> None:
    try:
        await serve(connected, peer)
    except Exception as error:  # noqa: BLE001 - a bug that one client meets must not end the others' tunnels
        log.error("a bug ended a connection", extra={"fields": {"peer": peer, "reason": repr(error)}})
    finally:
        # Whoever served it in order has closed it already.
        sockets.Socket(connected).close(is_orderly=False)
