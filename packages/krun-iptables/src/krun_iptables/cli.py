"""The start of krun-iptables: without the machinery of flags, but for help, completion and the commands below it."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # signal itself makes enums of all of them
import gc
import os
import sys

from krun_iptables import errors

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn

TOOL = "krun-iptables"
COMMANDS = ("explain", "verify")
TELLS = ("-h", "--help", "--version")


def main() -> NoReturn:
    """Run as the process."""
    # Who ignores it, as some supervisors do, hands that down: then nobody is told how a program has ended.
    _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)
    arguments = sys.argv[1:]
    if _is_clicks(arguments):
        from krun_iptables.command import command

        errors.run(command, tool=TOOL)
    gc.disable()  # for some tens of ms, of which it would take one in twenty
    errors.run_plain(lambda: _run(arguments), tool=TOOL)


def _run(arguments: Sequence[str]) -> int:
    # Here, as Ctrl-C may come as early.
    from krun_iptables import run

    return run.run(arguments, os.environ)


def _is_clicks(arguments: Sequence[str]) -> bool:
    if os.environ.get("_KRUN_IPTABLES_COMPLETE") or (arguments and arguments[0] in COMMANDS):
        return True
    told = next((word for word in arguments if word in TELLS), "")
    if told:
        # Whatever else is there is not read: click reads flags otherwise.
        sys.argv[1:] = [told]
    return bool(told)
