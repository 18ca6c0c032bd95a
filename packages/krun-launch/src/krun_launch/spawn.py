"""Starts one process from its description: fork, a clean signal state, exec; says exactly why an exec failed.

Not subprocess: its import costs more than all of this, and it knows no parent-death signal and no shared terminal.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import stat
import sys
from collections.abc import Callable, Mapping

from krun_launch import prctl
from krun_launch.errors import Exit, Failure
from krun_launch.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path
    from types import CodeType
    from typing import ClassVar, NoReturn

    from krun_launch.identity import Identity

# How a child relates to our process group.
SHARED = "shared"  # stays in ours: a terminal's foreground job
GROUP = "group"  # its own group
FOREGROUND = "foreground"  # its own group, which becomes the terminal's foreground job
SESSION = "session"  # its own session, so that no terminal reaches it

EVERY_SIGNAL = frozenset(map(int, signal.valid_signals()))  # asked once: that takes as long as a fork

INHERIT = "inherit"
NULL = "null"


class NotFound(Failure):
    """The program is not there."""

    exit_code: ClassVar[int] = Exit.NOT_FOUND


class CannotRun(Failure):
    """The program is there, and cannot be executed."""

    exit_code: ClassVar[int] = Exit.CANNOT_RUN


class ProcessSpec(Record):
    """A process to start. ``death_signal`` reaches it when we die; stdout of a helper goes to our stderr.

    With ``notifies`` it is given a pipe, and its number in KRUN_NOTIFY_FD. Without ``identity`` it runs as we do.
    ``stdout`` and ``stderr`` are descriptors that take the place of ours. With ``complaints`` stderr is a pipe of the
    process's own, passed on to ours, and the lines that complain are kept in that file. ``folder`` is where it works.
    With ``may_borrow`` a program for our own Python runs in the interpreter that is here already.
    """

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str]
    stdin: str = INHERIT
    group: str = GROUP
    is_helper: bool = False
    death_signal: int = signal.SIGTERM
    inherited_fds: tuple[int, ...] = ()
    identity: Identity | None = None
    notifies: bool = False
    stdout: int | None = None
    stderr: int | None = None
    complaints: Path | None = None
    folder: str = ""
    may_borrow: bool = False

    def notifying(self, writer: int) -> ProcessSpec:
        """The same, with this end of a pipe to write to."""
        env = {**self.env, "KRUN_NOTIFY_FD": str(writer)}
        return self.but(env=env, inherited_fds=(*self.inherited_fds, writer))


def helper(
    name: str,
    *,
    argv: tuple[str, ...],
    env: Mapping[str, str],
    identity: Identity | None = None,
    notifies: bool = False,
) -> ProcessSpec:
    """A process of ours: out of reach of the terminal, and gone when we are."""
    return ProcessSpec(
        name=name,
        argv=argv,
        env=env,
        stdin=NULL,
        group=SESSION,
        is_helper=True,
        death_signal=signal.SIGKILL,
        identity=identity,
        notifies=notifies,
    )


def spawn(spec: ProcessSpec) -> int:
    """Start the process and return its pid.

    Raises:
        NotFound, CannotRun: fork or exec failed; no process is left behind.
    """
    parent = os.getpid()
    if spec.complaints is not None:
        # Late: only the agent has one.
        from krun_launch import agent_log

        log = agent_log.relayed(spec.complaints, owner=spec.identity.uid if spec.identity else None)
        try:
            return spawn(spec.but(stderr=log, complaints=None))
        finally:
            os.close(log)
    reader, writer = os.pipe()
    if spec.identity is not None:
        # Late: whoever is not root changes nobody. Before the fork: a child must not import.
        from krun_launch import credentials

        adopt = credentials.adopt
        _give_streams(spec)
    else:
        adopt = None
    code = None
    if spec.may_borrow:
        # Late: few programs are waited for. Before the fork, as above.
        from krun_launch import borrowed

        code = borrowed.program(spec.argv[0], env=spec.env)
    # Until the child has its own dispositions: it would note a signal in our pipe, as if it had come to us.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, EVERY_SIGNAL)
    try:
        pid = os.fork()
        if pid == 0:
            _child(spec, parent=parent, writer=writer, adopt=adopt, code=code)
    except OSError as error:
        os.close(reader)
        raise CannotRun(
            f"{spec.name}: no process can be made: {error.strerror}", hint="see the limits of processes and memory"
        ) from None
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        failure = pipe.read()
    if failure:
        os.waitpid(pid, 0)
        raise _failure(spec, number=int(failure))
    return pid


def _child(
    spec: ProcessSpec,
    *,
    parent: int,
    writer: int,
    adopt: Callable[[Identity], None] | None,
    code: CodeType | None,
) -> NoReturn:
    """Between fork and exec: nothing here may return into the caller's code."""
    try:
        _prepare(spec, parent=parent, adopt=adopt)
        if code is not None:
            from krun_launch import borrowed

            borrowed.run(code, argv=spec.argv, env=spec.env, inherited_fds=spec.inherited_fds)
        os.execvpe(spec.argv[0], spec.argv, dict(spec.env))
    except OSError as error:
        os.write(writer, str(error.errno or errno.EIO).encode())
    finally:
        os._exit(Exit.CANNOT_RUN)


def _prepare(spec: ProcessSpec, *, parent: int, adopt: Callable[[Identity], None] | None) -> None:
    if spec.group == SESSION:
        os.setsid()
    elif spec.group in (GROUP, FOREGROUND):
        os.setpgid(0, 0)
    if spec.group == FOREGROUND:
        # A background process that does this is stopped by SIGTTOU, unless it is blocked, as it is now.
        os.tcsetpgrp(0, os.getpgrp())
    if adopt is not None and spec.identity is not None:
        adopt(spec.identity)
    prctl.die_with_parent(spec.death_signal, parent=parent)
    _arrange_streams(spec)
    for descriptor in spec.inherited_fds:
        os.set_inheritable(descriptor, True)
    # exec keeps ignored signals ignored (Python ignores SIGPIPE and SIGXFSZ): a program expects neither.
    # The mask comes last: what was held back so far takes the child with it, as it should.
    signal.set_wakeup_fd(-1)
    for number in EVERY_SIGNAL - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _arrange_streams(spec: ProcessSpec) -> None:
    if spec.folder:
        os.chdir(spec.folder)
    if spec.stdin == NULL:
        descriptor = os.open(os.devnull, os.O_RDWR)
        if descriptor != 0:
            os.dup2(descriptor, 0)
    if spec.stderr is not None:
        os.dup2(spec.stderr, 2)
    if spec.stdout is not None:
        os.dup2(spec.stdout, 1)
    elif spec.is_helper:
        os.dup2(2, 1)
    if spec.is_helper:
        _keep_streams_only()


def _keep_streams_only() -> None:
    """What somebody above has left open is the application's business at most."""
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - no need of paths
        with contextlib.suppress(OSError):
            os.set_inheritable(int(name), int(name) < 3)


def _give_streams(spec: ProcessSpec) -> None:
    """Let an application that is another user open /dev/stdout and /dev/stderr, as servers that log to them do."""
    if spec.is_helper or spec.identity is None or spec.identity.uid == os.geteuid():
        return
    for descriptor in (1, 2):
        # A container's streams are pipes that are nobody else's; a terminal or a file is left as it is.
        with contextlib.suppress(OSError):
            if stat.S_ISFIFO(os.fstat(descriptor).st_mode):
                os.fchown(descriptor, spec.identity.uid, -1)


def _failure(spec: ProcessSpec, *, number: int) -> Failure:
    what = f"{spec.name}: {spec.argv[0]}"
    found = find(spec.argv[0], path=spec.env.get("PATH", os.defpath))
    if number in (errno.ENOENT, errno.ENOTDIR):
        if found:
            return CannotRun(f"{what} cannot be run: the interpreter in its first line is missing", hint=f"see {found}")
        return NotFound(f"{what} is not found", hint="give a path, or a name in PATH")
    hint = "a script needs a first line such as #!/bin/sh" if number == errno.ENOEXEC else ""
    if number in (errno.EACCES, errno.EPERM) and spec.identity is not None:
        hint = f"it is to run as user {spec.identity.uid}, group {spec.identity.gid}: may they read and execute it?"
    if number == errno.E2BIG:
        name = max(spec.env, key=lambda name: len(spec.env[name]), default="PATH")
        hint = f"arguments and environment are too large for a process; look at {name} first (Linux: 128 KiB each)"
    return CannotRun(f"{what} cannot be run: {os.strerror(number)}", hint=hint)


def is_on_terminal() -> bool:
    """Tell whether we are a terminal's foreground job, with it as stdin."""
    try:
        return os.isatty(0) and os.tcgetpgrp(0) == os.getpgrp()
    except OSError:
        return False


def status_of(waited: int) -> int:
    """What waitpid(2) tells of an end, as a shell gives it: 128+N after signal N."""
    code = os.waitstatus_to_exitcode(waited)
    return code if code >= 0 else 128 - code


def find_own(name: str, *, path: str) -> str | None:
    """One of our own programs: beside this one first, so that an environment of its own needs no PATH."""
    beside = (os.path.dirname(os.path.abspath(program)) for program in (sys.argv[0], sys.executable) if "/" in program)  # noqa: PTH100, PTH120
    return find(name, path=":".join([*beside, path]))


def find(name: str, *, path: str) -> str | None:
    """The file that a shell would run for a name, or None. (shutil.which costs an import of all compressors.)"""
    candidates = [name] if "/" in name else [os.path.join(folder or ".", name) for folder in path.split(":")]  # noqa: PTH118
    for candidate in candidates:
        if os.path.isfile(candidate) and os.access(candidate, os.X_OK):  # noqa: PTH113
            return candidate
    return None
