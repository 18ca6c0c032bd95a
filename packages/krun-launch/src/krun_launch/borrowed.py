"""Runs a program of Python in a child of ours as it is, when it is written for the very interpreter that runs us.

A new interpreter, and the modules of Python that are here already, would take a quarter of the time in which krun-token
gets a token, and the whole start waits for that. To the program it is a process as any other: its arguments,
environment, streams, user and signals are its own.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from types import CodeType
    from typing import NoReturn

FIRST_LINE = 4096  # bytes in which it must end
OF_PYTHON = "PYTHON"  # settings of an interpreter, which ours has taken from its own environment


def program(path: str, *, env: Mapping[str, str]) -> CodeType | None:
    """The program of a script; None when another interpreter is to run it, or one with other settings than ours."""
    if not sys.executable or sys.flags.isolated or _settings(env) != _settings(os.environ):
        return None
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - no need of paths
            if file.readline(FIRST_LINE).rstrip() != b"#!" + os.fsencode(sys.executable):
                return None
            return compile(b"\n" + file.read(), path, "exec", dont_inherit=True)
    except (OSError, SyntaxError, ValueError):
        return None  # whoever executes it says why it cannot be


def run(
    code: CodeType, *, argv: Sequence[str], env: Mapping[str, str], inherited_fds: Collection[int] = ()
) -> NoReturn:
    """In a child that has its streams, user and signals already: be the program, to its end."""
    status = 1
    try:
        _settle(argv, env=env, inherited_fds=inherited_fds)
        exec(code, {"__name__": "__main__", "__file__": argv[0]})
        status = 0
    except SystemExit as end:
        status = _told(end)
    except BaseException as error:  # noqa: BLE001 - the outermost frame: nothing may pass into the parent's code
        _flush()
        sys.excepthook(type(error), error, error.__traceback__)
    finally:
        _flush()
        os._exit(status & 0xFF)


def _told(end: SystemExit) -> int:
    """The status that it means; a text is said, as an interpreter's end does."""
    if end.code is None or isinstance(end.code, int):
        return end.code or 0
    _flush()
    sys.stderr.write(f"{end.code}\n")
    return 1


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()


def _settle(argv: Sequence[str], *, env: Mapping[str, str], inherited_fds: Collection[int]) -> None:
    """What exec and the start of an interpreter do."""
    # What was to be closed by exec. Not closerange: on an old kernel it tries each number that there may be.
    for number in map(int, os.listdir("/proc/self/fd")):  # noqa: PTH208 - as above
        if number > 2 and number not in inherited_fds:
            with contextlib.suppress(OSError):
                os.close(number)
    os.environ.clear()
    os.environ.update(env)
    sys.argv[:] = argv
    if not sys.flags.safe_path:
        sys.path[0] = os.path.dirname(argv[0])  # noqa: PTH120 - as above
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_IGN)
    with contextlib.suppress(OSError), open("/proc/self/comm", "w", encoding="utf-8") as name:  # noqa: PTH123
        name.write(os.path.basename(argv[0]))  # noqa: PTH119 - what ps shows


def _settings(env: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in env.items() if name.startswith(OF_PYTHON)}
