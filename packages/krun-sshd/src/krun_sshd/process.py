"""The processes of a session: decides what is started, starts it with a terminal or pipes, and ends all of it."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import struct
import termios
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

SHELLS = ("/bin/bash", "/bin/sh", "/busybox/sh")
# Not for a shell: the keys it was let in by, and the pipe on which tools of ours report.
HIDDEN = ("SSH_AUTH", "KRUN_INIT_FD")
# What a client may set, as Debian's sshd accepts it by default.
ACCEPTED = ("LANG", "LC_")
POLL = 0.02  # seconds between two looks at what is left of a session; the kernel does not announce it

Size = tuple[int, int]  # columns, rows


@dataclass(frozen=True, kw_only=True)
class Request:
    """What the client asked for."""

    command: str | None  # None: a shell
    terminal: str | None  # the terminal type; None: no terminal
    variables: Mapping[str, str]  # sent by the client
    granted: Mapping[str, str]  # environment="…" of the key that let it in
    user: str
    connection: str  # SSH_CONNECTION: client address and port, server address and port


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is started for a session."""

    argv: tuple[str, ...]
    environment: dict[str, str]
    directory: str
    terminal: bool


def plan(request: Request, *, environment: Mapping[str, str], shell: str, home: str) -> Plan:
    """Decide the process of a session: the container's own environment, and little on top of it.

    The shell is no login shell: /etc/profile would replace the PATH of the container's image.
    """
    merged = {name: value for name, value in environment.items() if name not in HIDDEN}
    merged.setdefault("HOME", home)
    merged.update({name: value for name, value in request.variables.items() if name.startswith(ACCEPTED)})
    merged.update(request.granted)
    merged.update({"SHELL": shell, "SSH_CONNECTION": request.connection, "LOGNAME": request.user})
    if request.terminal is not None:
        merged["TERM"] = request.terminal or "dumb"
    argv = (shell,) if request.command is None else (shell, "-c", request.command)
    directory = merged["HOME"] if os.access(merged["HOME"], os.X_OK) else "/"
    return Plan(argv=argv, environment=merged, directory=directory, terminal=request.terminal is not None)


def find_shell(environment: Mapping[str, str]) -> str:
    """The shell of the container: ``$SHELL``, or the first that exists; FileNotFoundError when there is none."""
    for candidate in (environment.get("SHELL", ""), *SHELLS):
        if candidate.startswith("/") and Path(candidate).is_file() and os.access(candidate, os.X_OK):
            return candidate
    raise FileNotFoundError(f"no shell in this container: looked for $SHELL, {', '.join(SHELLS)}")


class Child:
    """The first process of a session, leader of a kernel session of its own, and our ends of its streams."""

    def __init__(self, *, process: asyncio.subprocess.Process, stdin: int, stdout: int, stderr: int | None) -> None:
        self.process = process
        self.stdin = stdin
        self.stdout = stdout
        self.stderr = stderr  # None: a terminal has one stream

    def signal(self, number: signal.Signals) -> bool:
        """Send a signal to every process of the session; tell whether there was one."""
        found = False
        for pid in members(self.process.pid):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, number)
                found = True
        return found

    async def end(self, *, grace: float, now: asyncio.Event) -> None:
        """SIGHUP to all of the session, and SIGKILL to what is there after ``grace`` seconds, or when ``now`` is set.

        A process that made a session of its own (setsid, a daemon) has left this one, and stays.
        """
        if not self.signal(signal.SIGHUP):
            return
        self.signal(signal.SIGCONT)  # a stopped process takes SIGHUP only when it goes on
        deadline = time.monotonic() + grace
        while members(self.process.pid) and not now.is_set() and time.monotonic() < deadline:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(POLL):
                    await now.wait()
        self.signal(signal.SIGKILL)

    def resize(self, size: Size) -> None:
        """Tell the terminal its size; the kernel sends SIGWINCH."""
        if self.stderr is None:
            _set_size(self.stdin, size)


async def spawn(what: Plan, *, size: Size) -> Child:
    """Start a session's process; OSError when it cannot be executed."""
    ours: list[int] = []
    theirs: list[int] = []
    try:
        _streams(ours, theirs, terminal=what.terminal, size=size)
        process = await asyncio.create_subprocess_exec(
            *what.argv,
            stdin=theirs[0],
            stdout=theirs[1],
            stderr=theirs[2],
            env=what.environment,
            cwd=what.directory,
            start_new_session=True,
            preexec_fn=_take_terminal if what.terminal else None,
        )
    except BaseException:
        _close(ours)
        raise
    finally:
        _close(theirs)
    return Child(process=process, stdin=ours[0], stdout=ours[1], stderr=None if what.terminal else ours[2])


def members(session: int) -> list[int]:
    """The living processes of a kernel session, by its leader's pid; zombies do not count."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            with contextlib.suppress(OSError):
                # proc(5): the name in parentheses may hold anything; then state, ppid, pgrp, session.
                fields = (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()
                if int(fields[3]) == session and fields[0] not in "ZX":
                    found.append(int(folder.name))
    return found


def _streams(ours: list[int], theirs: list[int], *, terminal: bool, size: Size) -> None:
    if terminal:
        master, slave = os.openpty()
        ours.append(master)
        theirs += [slave, slave, slave]
        ours.append(os.dup(master))  # one for each direction: each is closed by its own transport
        _set_size(master, size)
        return
    read, write = os.pipe()
    theirs.append(read)
    ours.append(write)
    for _ in range(2):
        read, write = os.pipe()
        ours.append(read)
        theirs.append(write)


def _take_terminal() -> None:
    # In the child, after setsid: its stdin becomes the terminal that controls the session, so that ^C and hang-up work.
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def _set_size(descriptor: int, size: Size) -> None:
    columns, rows = size
    with contextlib.suppress(OSError):
        fcntl.ioctl(descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", rows & 0xFFFF, columns & 0xFFFF, 0, 0))


def _close(descriptors: list[int]) -> None:
    for descriptor in set(descriptors):
        with contextlib.suppress(OSError):
            os.close(descriptor)
