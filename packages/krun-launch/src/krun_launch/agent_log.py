"""The log of pilot-agent and Envoy: a pipe that their user may open again, passed on by a small process of ours.

Envoy opens /dev/stdout when a mesh has access logs, and rejects every listener when it cannot: a terminal, a file or a
socket of root's is closed to its user (and a socket to everybody). What is complained of at the start is kept too.
"""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

from krun_launch.spawn import EVERY_SIGNAL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

CHUNK = 1 << 16
LONGEST = 1 << 13  # bytes of one line that are looked at
KEPT = 1 << 16  # bytes of complaints: those of the start
# Of pilot-agent as text and as JSON, and of Envoy.
MARKS = (
    b"\twarn\t",
    b"\twarning\t",
    b"\tcritical\t",
    b"\terror\t",
    b"\tfatal\t",
    b'"level":"warn"',
    b'"level":"error"',
    b'"level":"fatal"',
)
PREFIXES = (b"Error: ", b"error: ", b"panic: ")


def relayed(complaints: Path, *, owner: int | None) -> int:
    """Start the relay and return the end of its pipe to write to; it ends when nobody holds that any more."""
    # Of an earlier agent: no cause of what this one does.
    complaints.unlink(missing_ok=True)
    reader, writer = os.pipe()
    try:
        if owner is not None:
            os.fchown(writer, owner, -1)
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, EVERY_SIGNAL)
        try:
            if os.fork() == 0:
                _child(reader, complaints=complaints)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    except OSError:
        os.close(writer)
        raise
    finally:
        os.close(reader)
    return writer


def complaints(data: bytes) -> list[bytes]:
    """The lines that complain."""
    return [line for line in data.splitlines() if is_complaint(line)]


def is_complaint(line: bytes) -> bool:
    """Whether a line of the log tells that something is wrong."""
    return line.startswith(PREFIXES) or any(mark in line for mark in MARKS)


def _child(reader: int, *, complaints: Path) -> NoReturn:
    """A process of its own, without exec: it needs nothing that is not here already. Signals stay blocked."""
    try:
        os.setsid()
        signal.set_wakeup_fd(-1)
        for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - no need of paths
            if int(name) not in (2, reader):
                with contextlib.suppress(OSError):
                    os.close(int(name))
        _pass_on(reader, complaints=complaints)
    finally:
        os._exit(0)


def _pass_on(reader: int, *, complaints: Path) -> None:
    left, rest = KEPT, b""
    while data := os.read(reader, CHUNK):
        with contextlib.suppress(OSError):  # nobody reads our stderr any more: the agent is not to feel it
            _write(2, data)
        if left <= 0:
            continue
        *lines, rest = (rest + data).split(b"\n")
        rest = rest[-LONGEST:]
        found = b"".join(line[:LONGEST] + b"\n" for line in lines if is_complaint(line))
        if found:
            left -= len(found)
            with contextlib.suppress(OSError), open(complaints, "ab", opener=_private) as file:
                file.write(found)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
