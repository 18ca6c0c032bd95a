"""TCP sockets without asyncio transports: a transport that fails to write throws away what it has already read."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import struct

from hbone import errors

BACKLOG = 1024
KEEPALIVE = 60  # seconds of silence after which the kernel asks whether the other host is still there


def close(connected: socket.socket, *, is_orderly: bool) -> None:
    """Close; not orderly means a reset."""
    if not is_orderly:
        with contextlib.suppress(OSError):
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connected.close()


def tune(connected: socket.socket) -> None:
    """No delay for small messages, and keepalives, on an own or accepted TCP socket."""
    with contextlib.suppress(OSError):  # not TCP, or gone
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if hasattr(socket, "TCP_KEEPIDLE"):  # not on macOS
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE)


async def dial(address: str, port: int, *, seconds: float) -> socket.socket:
    """Connect to an IP address. Raises OSError, TimeoutError."""
    dialled = socket.socket(family(address), socket.SOCK_STREAM)
    try:
        dialled.setblocking(False)
        async with asyncio.timeout(seconds):
            await asyncio.get_running_loop().sock_connect(dialled, (address, port))
    except BaseException:
        dialled.close()
        raise
    return dialled


async def reach(host: str, port: int) -> socket.socket:
    """Connect to a host by name: to the first of its addresses that answers. Raises OSError."""
    loop = asyncio.get_running_loop()
    failed: OSError = socket.gaierror("no address")
    for found, _, _, _, address in await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        dialled = socket.socket(found, socket.SOCK_STREAM)
        try:
            dialled.setblocking(False)
            await loop.sock_connect(dialled, address)
        except OSError as error:
            dialled.close()
            failed = error
        except BaseException:
            dialled.close()
            raise
        else:
            return dialled
    raise failed


def listen(address: str, port: int) -> socket.socket:
    """A listening socket on an IP address.

    Raises:
        Misconfigured: the port is taken, or the address is not this machine's.
    """
    listener = socket.socket(family(address), socket.SOCK_STREAM)
    try:
        listener.setblocking(False)
        # A port that only lingers in TIME_WAIT after the last run is free.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise errors.Misconfigured(
            f"cannot listen on {address}:{port}: {error.strerror}",
            hint="choose another port, or end the program that holds it: `ss -ltnp` names it",
        ) from error
    return listener


def name(bound: socket.socket) -> str:
    """HOST:PORT of a socket's own end."""
    host, port = bound.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def family(address: str) -> socket.AddressFamily:
    """Of an IP address."""
    return socket.AF_INET6 if ipaddress.ip_address(address).version == 6 else socket.AF_INET
