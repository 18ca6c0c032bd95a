"""The start of hbone: the plain form, which ssh waits for, without the machinery of flags; all else by ``command``."""

from __future__ import annotations

import gc
import os
import sys

from hbone import errors, plain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from hbone.settings import Settings
    from hbone.urls import URL

TOOL = "hbone"


def main() -> NoReturn:
    """Run as the process."""
    asked = plain.read(sys.argv[1:], os.environ)
    if asked is None:
        from hbone.command import command

        errors.run(command, tool=TOOL)
    url, settings = asked
    gc.disable()  # until the tunnel is open: there is no garbage yet, and to look for it takes as long as a module
    errors.run_plain(lambda: _pipe(url=url, settings=settings), tool=TOOL)


def _pipe(*, url: URL, settings: Settings) -> int:
    from hbone.pipe import pipe

    return pipe(url=url, settings=settings)
