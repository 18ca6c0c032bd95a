"""The start of krun-discover: the plain form without the machinery of flags; all else by ``command``."""

from __future__ import annotations

import gc
import os
import sys

from krun_discover import errors, options

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn


def main() -> NoReturn:
    """Run as the process."""
    asked = options.read(sys.argv[1:], os.environ)
    if asked is None:
        from krun_discover.command import command

        errors.run(command, tool=options.TOOL)
    gc.disable()  # for a tenth of a second, of which it would take one in twenty
    errors.run_plain(lambda: _run(asked), tool=options.TOOL)


def _run(asked: options.Options) -> None:
    from krun_discover import run

    run.run(asked)
