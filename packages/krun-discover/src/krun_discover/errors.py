"""Errors that end a tool, the exit status of each, and the one place that turns them into text.

This file is the same in every package, and a test holds that: there is no shared library (docs/decisions/0001).
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import ClassVar, NoReturn, TextIO

    import click


class Exit:
    """Exit statuses, after sysexits(3); the table is in docs/process.md. No enum: that is a tenth of a start."""

    OK = 0
    USAGE = 2
    MALFORMED = 65
    UNREACHABLE = 69
    BUG = 70
    DEADLINE = 75
    DENIED = 77
    MISCONFIGURED = 78
    CANNOT_RUN = 126
    NOT_FOUND = 127
    INTERRUPTED = 130


class Failure(Exception):
    """An expected failure: says what failed, on what and why, and how to go on.

    None of click's: a start that nothing goes wrong in, and that needs no flags, does not import click.
    """

    exit_code: ClassVar[int] = Exit.BUG

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class Malformed(Failure):
    """The environment JSON is not what docs/environment.md describes."""

    exit_code = Exit.MALFORMED


class Unreachable(Failure):
    """Something outside of this process does not answer, or is gone."""

    exit_code = Exit.UNREACHABLE


class DeadlinePassed(Failure):
    """Something was waited for and did not come in time."""

    exit_code = Exit.DEADLINE


class Denied(Failure):
    """The kernel, IAM or RBAC does not permit it."""

    exit_code = Exit.DENIED


class Misconfigured(Failure):
    """Settings are missing, wrong or contradict each other."""

    exit_code = Exit.MISCONFIGURED


def run(command: click.Command, *, tool: str) -> NoReturn:
    """Run a click command as the process: its result is the exit status, its failures become the last line."""
    _open_standard_streams()
    status = _status(lambda: command.main(prog_name=tool, standalone_mode=False), tool=tool)
    if status:
        _tell_init(tool=tool, status=status)
    sys.exit(status)


def run_plain(start: Callable[[], object], *, tool: str) -> NoReturn:
    """The same for a start that needs no click, and leaves nothing to be tidied up at the interpreter's end."""
    _open_standard_streams()
    status = _status(start, tool=tool)
    if status:
        _tell_init(tool=tool, status=status)
    for stream in (sys.stdout, sys.stderr):
        _flush(stream)
    # Modules are not taken down one by one: on a slow machine that takes as long as the work.
    os._exit(status)


def _flush(stream: TextIO) -> bool:
    """Write what is left; tell whether somebody has read it."""
    try:
        stream.flush()
    except (OSError, ValueError):
        return False
    return True


def _open_standard_streams() -> None:
    """Open what the caller has closed of 0, 1 and 2: the next pipe or socket would get its number, and its readers."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            # The lowest number that is free is this one. A write to stdout fails, as before: data must not vanish.
            os.set_inheritable(os.open(os.devnull, os.O_RDONLY if number == 1 else os.O_RDWR), True)
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "r" if number == 0 else "w", closefd=False))


def _status(start: Callable[[], object], *, tool: str) -> int:
    try:
        result = start()
    except Failure as error:
        return _report(error.message, hint=error.hint, status=error.exit_code, tool=tool)
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
    except SystemExit as end:
        # click leaves so after shell completion, and with 1 when nobody reads our stdout: a shell says 128+SIGPIPE.
        return 128 + 13 if isinstance(end.__context__, OSError) else int(end.code or 0)
    except Exception as error:  # noqa: BLE001 - the outermost frame: nothing may pass it
        return _status_of(error, tool=tool)
    return result if isinstance(result, int) else Exit.OK


def _status_of(error: Exception, *, tool: str) -> int:
    """Of a sibling's failure, of one of click's, or of a bug, which is shown whole and has its own status."""
    hint, exit_code = getattr(error, "hint", None), getattr(error, "exit_code", None)
    if isinstance(hint, str) and isinstance(exit_code, int):
        # hgate tunnels with hbone, whose failures are of hbone's own copy of this file.
        return _report(str(error), hint=hint, status=exit_code, tool=tool)
    import click

    match error:
        case click.UsageError():
            return _report(error.format_message(), hint=f"see '{tool} --help'", status=error.exit_code, tool=tool)
        case click.ClickException():
            return _report(error.format_message(), hint="", status=error.exit_code, tool=tool)
        case click.exceptions.Exit():
            return int(error.exit_code)
        case click.Abort():
            return Exit.INTERRUPTED
    import traceback

    traceback.print_exception(error)
    sys.stderr.write(f"{tool}: error: a bug in {tool}: {type(error).__name__}: {error}\n")
    return Exit.BUG


def _report(text: str, *, hint: str, status: int, tool: str) -> int:
    """Write the last line of a failed tool to stderr."""
    lines = [f"{tool}: error: {text.rstrip('.')}"] + ([f"hint: {hint}"] if hint else [])
    sys.stderr.write("\n".join(lines) + "\n")
    return int(status)


def _tell_init(*, tool: str, status: int) -> None:
    """Report a failure to the ``krun-launch --init`` above us: a pipeline hides all statuses but its last."""
    pipe = os.environ.get("KRUN_INIT_FD", "")
    # Below 3 are our streams; a number that is longer is no descriptor.
    if pipe.isdecimal() and len(pipe) < 10 and int(pipe) > 2:
        import contextlib  # late, as most starts do not fail

        with contextlib.suppress(OSError):
            os.write(int(pipe), f"failed {tool} {int(status)}\n".encode())
