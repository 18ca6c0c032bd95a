"""Errors that end a tool, the exit status of each, and the one place that turns them into text.

This file is the same in every package, and a test holds that: there is no shared library (docs/decisions/0001).
"""

from __future__ import annotations

import contextlib
import enum
import os
import sys
from typing import ClassVar, NoReturn

import click


class Exit(enum.IntEnum):
    """Exit statuses, after sysexits(3); the table is in docs/process.md."""

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


class Failure(click.ClickException):
    """An expected failure: says what failed, on what and why, and how to go on."""

    exit_code: ClassVar[int] = Exit.BUG

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
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


def report(*, tool: str, error: click.ClickException) -> int:
    """Write the last line of a failed tool to stderr, and return its exit status."""
    hint = getattr(error, "hint", "")
    if isinstance(error, click.UsageError) and not hint:
        hint = f"see '{tool} --help'"
    text = error.format_message().rstrip(".")
    lines = [f"{tool}: error: {text}"] + ([f"hint: {hint}"] if hint else [])
    sys.stderr.write("\n".join(lines) + "\n")
    return int(error.exit_code)


def run(command: click.Command, *, tool: str) -> NoReturn:
    """Run a click command as the process: its result is the exit status, its failures become the last line."""
    _open_standard_streams()
    status = _status(command, tool=tool)
    if status:
        _tell_init(tool=tool, status=status)
    sys.exit(status)


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


def _status(command: click.Command, *, tool: str) -> int:
    try:
        result = command.main(prog_name=tool, standalone_mode=False)
    except click.ClickException as error:
        return report(tool=tool, error=error)
    except click.exceptions.Exit as end:
        return int(end.exit_code)
    except (click.Abort, KeyboardInterrupt):
        return Exit.INTERRUPTED
    except SystemExit as end:
        # click leaves so after shell completion, and with 1 when nobody reads our stdout: a shell says 128+SIGPIPE.
        return 128 + 13 if isinstance(end.__context__, OSError) else int(end.code or 0)
    except Exception as error:  # noqa: BLE001 - the outermost frame: a bug is shown whole, with its own status
        import traceback

        traceback.print_exc()
        sys.stderr.write(f"{tool}: error: a bug in {tool}: {type(error).__name__}: {error}\n")
        return Exit.BUG
    return result if isinstance(result, int) else Exit.OK


def _tell_init(*, tool: str, status: int) -> None:
    """Report a failure to the ``krun-launch --init`` above us: a pipeline hides all statuses but its last."""
    pipe = os.environ.get("KRUN_INIT_FD", "")
    # Below 3 are our streams; a number that is longer is no descriptor.
    if pipe.isdecimal() and len(pipe) < 10 and int(pipe) > 2:
        with contextlib.suppress(OSError):
            os.write(int(pipe), f"failed {tool} {int(status)}\n".encode())
