"""Holds that the ports of a plan are free before anything starts, and names who has one that is not."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import sys
from collections.abc import Iterable
from pathlib import Path

from krun_launch.errors import Misconfigured
from krun_launch.plan import Port

LISTEN = "0A"
ANY = "0.0.0.0"


def check(ports: Iterable[Port]) -> None:
    """Try to bind each one.

    Raises:
        Misconfigured: one is taken; the message names it and, where it can be seen, the process that holds it.
    """
    for port in ports:
        with socket.socket() as probe:
            # As every server does: connections that linger after a restart are no reason to fail.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((port.host, port.number))
                probe.listen(1)
            except OSError as error:
                raise _failure(port, error) from None


def _failure(port: Port, error: OSError) -> Misconfigured:
    by = holder(port.host, port.number)
    why = error.strerror or str(error)
    hint = f"stop it, or set {port.variable}" if port.variable else "stop it, or set KRUN_LOOPBACK to another address"
    if error.errno == errno.EADDRNOTAVAIL:
        hint = f"{port.host} is no address of this machine: see KRUN_BIND and KRUN_LOOPBACK"
    elif error.errno == errno.EACCES:
        hint = f"ports below 1024 are root's: set {port.variable} to another" if port.variable else ""
    return Misconfigured(
        f"port {port.number} on {port.host}, for {port.name}: {why}{f', by {by}' if by else ''}", hint=hint
    )


def holder(host: str, number: int) -> str:
    """The process that listens on a port, as ``NAME (pid N)``; empty when it cannot be seen from here."""
    inodes = _listening(host, number)
    if not inodes:
        return ""
    for process in Path("/proc").iterdir():
        if not process.name.isdecimal():
            continue
        with contextlib.suppress(OSError):
            for descriptor in (process / "fd").iterdir():
                with contextlib.suppress(OSError):
                    if os.readlink(descriptor) in inodes:  # noqa: PTH115 - the text of the link is no path
                        return f"{(process / 'comm').read_text().strip()} (pid {process.name})"
    return ""


def _listening(host: str, number: int) -> set[str]:
    """What /proc/PID/fd shows for the sockets that listen on a port, on this address or on all."""
    found: set[str] = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(table).read_text().splitlines()[1:]:
                words = line.split()
                address, _, port = words[1].rpartition(":")
                if words[3] == LISTEN and int(port, 16) == number and (host == ANY or address in _forms(host)):
                    found.add(f"socket:[{words[9]}]")
    return found


def _forms(host: str) -> set[str]:
    """How the kernel writes an IPv4 address, and all addresses, in its tables: words in the machine's byte order."""
    own = int.from_bytes(socket.inet_aton(host), sys.byteorder)
    return {f"{own:08X}", "0" * 8, "0" * 32}
