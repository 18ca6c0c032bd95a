"""Sockets of this process in another network namespace: a socket stays where it was made, whoever uses it.

So a test calls, listens and relays within a namespace without a process there. For root only.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import threading
from collections.abc import Callable, Iterator
from typing import TypeVar

CLONE_NEWNET = 0x40000000  # linux/sched.h
TIMEOUT = 20.0  # seconds
PIECE = 65536

Made = TypeVar("Made")


def inside(pid: int, make: Callable[[], Made]) -> Made:
    """What ``make`` returns or raises, called in the network namespace of a process."""
    made: list[Made] = []
    failed: list[Exception] = []

    def enter() -> None:
        try:
            _setns(pid)
            made.append(make())
        except Exception as error:  # noqa: BLE001 - raised again by who asked
            failed.append(error)

    # A thread of its own, which ends: namespaces belong to threads.
    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return made[0]


def connect(pid: int, address: str, port: int, *, timeout: float = TIMEOUT) -> socket.socket:
    """A TCP connection from within it."""
    return inside(pid, lambda: socket.create_connection((address, port), timeout=timeout))


def listener(pid: int, address: str, port: int) -> socket.socket:
    """A TCP listener in it."""
    return inside(pid, lambda: socket.create_server((address, port), backlog=256))


@contextlib.contextmanager
def serving(listening: socket.socket, serve: Callable[[socket.socket], None]) -> Iterator[None]:
    """Every connection that is accepted gets a thread that serves it, and is closed after it."""
    open_ones: set[socket.socket] = set()
    threads: list[threading.Thread] = []

    def handle(connected: socket.socket) -> None:
        with contextlib.suppress(OSError), connected:
            serve(connected)
        open_ones.discard(connected)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                connected, _ = listening.accept()
                open_ones.add(connected)
                threads.append(threading.Thread(target=handle, args=(connected,), daemon=True))
                threads[-1].start()

    accepting = threading.Thread(target=accept, daemon=True)
    accepting.start()
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        accepting.join()
        for connected in list(open_ones):
            with contextlib.suppress(OSError):
                connected.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join(TIMEOUT)


def relay(here: socket.socket, there: socket.socket) -> None:
    """Copy both ways until both sides have ended; the end of each is passed on."""
    for connection in (here, there):
        connection.settimeout(None)
        # Else a request in two writes waits 40 ms for the other side's delayed acknowledgement, as in no real network.
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    back = threading.Thread(target=_copy, args=(there, here), daemon=True)
    back.start()
    _copy(here, there)
    back.join()


def _copy(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(PIECE):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        # One that broke ends the other way too: nobody waits for it.
        for connection in (source, target):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


def _setns(pid: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
    try:
        if libc.setns(descriptor, CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "setns")
    finally:
        os.close(descriptor)
