"""What a process says on stderr: passed on line by line, but for the failure that it ends with, which is kept.

That failure, ``TOOL: error: WHAT`` with the ``hint:`` below it (docs/process.md), becomes part of one of our own.
"""

from __future__ import annotations

import os
import re
import select
from collections.abc import Callable

LIMIT = 8192  # bytes of a line that are waited for
PATIENCE = 0.1  # seconds that a line may wait for the reader of our stderr
FAILURE = re.compile(r"[\w.-]+: error: (.+)")
HINT = "hint: "


def pass_on(data: bytes) -> None:
    """Write to our stderr; what nobody reads is dropped, as our own lines are."""
    poll = select.poll()
    poll.register(2, select.POLLOUT)
    while data and poll.poll(PATIENCE * 1000):
        try:
            # No more at once than poll(2) promises of a pipe.
            data = data[os.write(2, data[:4096]) :]
        except OSError:
            return


class Said:
    """Takes the bytes as they come; ``cause`` and ``hint`` are those of the last lines."""

    def __init__(self, *, write: Callable[[bytes], None] = pass_on) -> None:
        self.cause = ""
        self.hint = ""
        self._write = write
        self._held: list[bytes] = []  # the lines of cause and hint
        self._rest = b""  # of a line that has not come whole

    def feed(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._take(line)
        if len(self._rest) > LIMIT:
            self._finish_line()

    def finish(self, *, is_failure: bool) -> None:
        """Nothing more comes; who has not failed has no cause, whatever it said."""
        self._finish_line()
        if not is_failure:
            self._release()

    def _finish_line(self) -> None:
        if self._rest:
            self._take(self._rest)
        self._rest = b""

    def _take(self, line: bytes) -> None:
        text = line.decode(errors="replace")
        if self.cause and not self.hint and text.startswith(HINT):
            self.hint = text.removeprefix(HINT)
            self._held.append(line)
            return
        # It went on: what was held was not its end.
        self._release()
        if failure := FAILURE.fullmatch(text):
            self.cause = failure[1]
            self._held.append(line)
        else:
            self._write(line + b"\n")

    def _release(self) -> None:
        for line in self._held:
            self._write(line + b"\n")
        self._held.clear()
        self.cause = self.hint = ""
