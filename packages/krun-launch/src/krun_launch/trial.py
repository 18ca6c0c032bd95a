"""Tries whether parts can run as other users here: tried, not guessed, in a process that ends at once."""

from __future__ import annotations

import os
from collections.abc import Sequence

from krun_launch.identity import NEEDED, PROXY

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

FOLDER, PROGRAM, REFUSED = 1, 2, 3  # kinds of what the child reports, before the number of a program or an error


def cannot_switch(programs: Sequence[str], *, folder: str, texts: Sequence[str] = ()) -> str:
    """Why not, or nothing: capabilities, ids that this user namespace has not, paths that only root reaches.

    Args:
        programs: paths that other users must be able to execute.
        texts: paths that they must be able to read.
        folder: where the run folder is going to be.
    """
    if missing := missing_capabilities():
        return f"root without {', '.join(missing)}"
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        _child(programs, texts=texts, folder=folder, writer=writer)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        said = pipe.read().split()
    os.waitpid(pid, 0)
    if not said:
        return ""
    kind, number = int(said[0]), int(said[1])
    if kind == REFUSED:
        return f"user {PROXY}: {os.strerror(number)}"
    return f"user {PROXY} cannot reach {folder if kind == FOLDER else [*programs, *texts][number]}"


def _child(programs: Sequence[str], *, texts: Sequence[str], folder: str, writer: int) -> NoReturn:
    try:
        os.setgroups([PROXY])
        os.setresgid(PROXY, PROXY, PROXY)
        os.setresuid(PROXY, PROXY, PROXY)
        # The folder is looked at through, not into: the run folder below it is going to be the user's own.
        if not os.access(folder, os.X_OK):
            os.write(writer, f"{FOLDER} 0".encode())
        for number, path in enumerate([*programs, *texts]):
            if not os.access(path, os.R_OK | (os.X_OK if number < len(programs) else 0)):
                os.write(writer, f"{PROGRAM} {number}".encode())
                break
    except OSError as error:
        os.write(writer, f"{REFUSED} {error.errno or 0}".encode())
    finally:
        os._exit(0)


def missing_capabilities() -> list[str]:
    """Those that it takes, and root has not here."""
    with open("/proc/self/status", encoding="utf-8") as file:  # noqa: PTH123 - no need of paths
        for line in file:
            if line.startswith("CapEff:"):
                effective = int(line.split()[1], 16)
                return [name for number, name in NEEDED.items() if not effective >> number & 1]
    return []
