"""The start of krun-token: the plain form without the machinery of flags; all else by ``token_command``."""

from __future__ import annotations

import gc
import os
import sys

from krun_discover import errors, token_options

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn


def main() -> NoReturn:
    """Run as the process."""
    descriptor = token_options.stays(sys.argv[1:])
    if descriptor is not None:
        errors.run_plain(lambda: _stay(descriptor), tool=token_options.TOOL)
    asked = token_options.read(sys.argv[1:], os.environ)
    if asked is None:
        from krun_discover.token_command import command

        errors.run(command, tool=token_options.TOOL)
    if not asked.options.watch:
        gc.disable()  # for a tenth of a second, of which it would take one in twenty
    errors.run_plain(lambda: _run(asked), tool=token_options.TOOL)


def _run(asked: token_options.Asked) -> None:
    from krun_discover import token_run

    token_run.run(asked)


def _stay(descriptor: int) -> None:
    from krun_discover.stay import stay  # late: only krun-launch asks for it

    gc.disable()  # as above; krun-launch asks for one token
    stay(descriptor, is_wanted=True)
