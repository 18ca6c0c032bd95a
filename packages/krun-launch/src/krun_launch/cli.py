"""The start of krun-launch: the plain form without the machinery of flags; all else by ``command``."""

from __future__ import annotations

import gc
import os
import signal
import sys

from krun_launch import errors, options

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn


def main() -> NoReturn:
    """Run as a program."""
    # Until the loop takes them: as PID 1 we would lose those that come before there is a handler, and a Ctrl-C would
    # be a traceback. Blocked ones wait.
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT))
    asked = options.read(sys.argv[1:], os.environ)
    if asked is None:
        from krun_launch.command import command

        errors.run(command, tool=options.TOOL)
    gc.disable()  # for some tens of ms, of which it would take one in twenty; launch has it again
    errors.run_plain(lambda: _run(asked), tool=options.TOOL)


def _run(asked: options.Options) -> int:
    from krun_launch import run

    return run.run(asked)
