"""Small files that a configuration names: read whole, or a failure that says which one and why."""

from __future__ import annotations

import os
import stat

from krun_discover.errors import Malformed, Misconfigured


def read(path: str, *, what: str, limit: int) -> bytes:
    """Read a file of at most ``limit`` bytes; ``what`` tells a person who names it.

    Raises Misconfigured for one that is not there, is no file or cannot be read, Malformed for one that is too long.
    """
    try:
        # Looked at before it is opened: opening a pipe that nobody writes to would wait for ever.
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise Misconfigured(f"{what}: {path} is not a file", hint="name a file")
        with open(path, "rb") as file:
            data = file.read(limit + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise Misconfigured(
            f"{what}: {path} cannot be read: {reason}", hint="is it there, and may this user read it?"
        ) from error
    if len(data) > limit:
        raise Malformed(f"{what}: {path} is longer than {limit} bytes", hint="is it the right file?")
    return data
