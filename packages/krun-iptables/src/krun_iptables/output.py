"""Text on stdout, for which a reader waits."""

from __future__ import annotations

import os

from krun_iptables.errors import Unreachable

BROKEN_PIPE = 128 + 13  # as a shell reports SIGPIPE


def write(text: str) -> None:
    """Write at once, without Python's buffer: what fails is seen here, and not at the interpreter's end."""
    data = text.encode("utf-8", errors="surrogateescape")
    try:
        while data:
            data = data[os.write(1, data) :]
    except BrokenPipeError as error:
        # Not left to click, which would end with a status of its own.
        raise SystemExit(BROKEN_PIPE) from error
    except OSError as error:
        raise Unreachable(f"stdout cannot be written: {error.strerror}", hint="is the disk full?") from error
