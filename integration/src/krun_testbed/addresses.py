"""Loopback addresses of our own, so that workloads with the same fixed ports run side by side."""

from __future__ import annotations

import secrets
import socket


def loopback() -> str:
    """An address out of 127.0.0.0/8 that nobody else uses: 16 million of them, drawn by chance, so none is locked."""
    while True:
        address = f"127.{secrets.randbelow(250) + 2}.{secrets.randbelow(256)}.{secrets.randbelow(254) + 1}"
        if not _in_use(address):
            return address


def free_port(*, address: str = "127.0.0.1") -> int:
    """A TCP port that is free on the address right now."""
    with socket.socket() as probe:
        probe.bind((address, 0))
        port: int = probe.getsockname()[1]
        return port


def _in_use(address: str) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, 15009))
        except OSError:
            return True
    return False
