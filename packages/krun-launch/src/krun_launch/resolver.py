"""The resolver's file: reads what is there, writes ours in front of it, and puts the old one back (resolv.conf(5)).

Ours carries the old one as comments, so that a krun-launch that was killed leaves nothing that the next cannot mend.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from krun_launch.errors import Misconfigured
from krun_launch.mesh_names import VIRTUAL
from krun_launch.record import Record

FILE = "/etc/resolv.conf"
MARK = "# krun-launch answers names of the mesh; what was here before, line by line:"
KEPT = "#| "
DEFAULT_SERVER = "127.0.0.1"  # what resolvers ask when the file names nobody
# Docker's own, in every network but its first. Its rules are before all others, and take any question to it; and its
# answers come from another port, which only the kernel's memory of one zone leads back.
DOCKERS = "127.0.0.11"
LIMIT = 1 << 16  # bytes; a resolver's file has some hundred


class Resolver(Record):
    """What the file says."""

    servers: tuple[str, ...]
    search: tuple[str, ...]
    options: tuple[str, ...]


def original(text: str) -> str:
    """The text as it was before us."""
    _, mark, kept = text.partition(MARK + "\n")
    if not mark:
        return text
    return "".join(line.removeprefix(KEPT) for line in kept.splitlines(keepends=True) if line.startswith(KEPT))


def parse(text: str) -> Resolver:
    """Read it as resolvers do: the last of search and domain counts, what is not understood is passed over."""
    servers: list[str] = []
    search: list[str] = []
    options: list[str] = []
    for line in text.splitlines():
        words = line.split()
        match words[:1]:
            case ["nameserver"] if len(words) > 1:
                servers.append(words[1])
            case ["search" | "domain"]:
                search = words[1:]
            case ["options"]:
                options += words[1:]
    return Resolver(servers=tuple(servers or [DEFAULT_SERVER]), search=tuple(search), options=tuple(options))


def is_dockers(text: str) -> bool:
    """Tell whether Docker's own resolver is asked: no rule of ours comes to a question to it."""
    return DOCKERS in parse(original(text)).servers


def render(text: str, *, server: str, namespace: str) -> str:
    """The text that makes ``server`` be asked, and completes names of one part with the workload's namespace."""
    before = original(text)
    was = parse(before)
    search = dict.fromkeys([f"{namespace}.svc.cluster.local", *was.search])
    # Of the user's options those stay that are about waiting. ndots would put the search domain behind names of the
    # outside world, and use-vc, edns0, trust-ad are between the relay's clients and the servers behind it: they stay.
    options = [option for option in was.options if not option.startswith("ndots:")]
    lines = [f"nameserver {server}", f"search {' '.join(search)}"]
    lines += [f"options {' '.join(options)}"] if options else []
    kept = "".join(KEPT + line for line in before.splitlines(keepends=True))
    return "\n".join([*lines, MARK, ""]) + kept


def read(path: str = FILE) -> str:
    """Its text; empty when there is none."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:  # noqa: PTH123 - no need of paths
            return file.read(LIMIT)
    except OSError:
        return ""


def cannot_answer(path: str = FILE) -> str:
    """Why names cannot be answered here, or nothing: the file can be written, and the virtual address has a route."""
    # Late: its import is a part of the start-up of every root, and most have no such question.
    import socket

    if not os.access(path, os.W_OK):
        return f"{path} cannot be written"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((VIRTUAL, 9))  # sends nothing: asks the routing table
        except OSError as error:
            return f"no route to {VIRTUAL}, which stands for names of the mesh: {error.strerror}"
    return ""


@contextlib.contextmanager
def restored(path: str = FILE) -> Iterator[None]:
    """Afterwards the file is as it was before us, if it is still ours."""
    try:
        yield
    finally:
        text = read(path)
        if MARK in text:
            with contextlib.suppress(OSError):
                _write(path, original(text))


def mend(path: str = FILE) -> bool:
    """Put back what a krun-launch that was killed has left, unless its relay still answers; tell whether it was so."""
    text = read(path)
    if MARK not in text or _answers(*parse(text).servers[:1]):
        return False
    with contextlib.suppress(OSError):
        _write(path, original(text))
    return True


def _answers(server: str) -> bool:
    import socket  # late, as above

    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            return probe.connect_ex((server, 53)) == 0
        except OSError:
            return False


def replace(text: str, *, path: str = FILE) -> None:
    """Write the file.

    Raises:
        Misconfigured: it cannot be written.
    """
    try:
        _write(path, text)
    except OSError as error:
        raise Misconfigured(
            f"{path}: cannot be written: {error.strerror}", hint="KRUN_MODE=whitebox needs no names"
        ) from None


def _write(path: str, text: str) -> None:
    # In place: in a container it is a mount of its own, which cannot be renamed over.
    Path(path).write_text(text, encoding="utf-8", errors="surrogateescape")
