"""An nft that is started before there is a text for it, so that its start costs no time.

Killed at any point, we leave all of the text to it or nothing: it is told of a text that is whole by one line, which a
pipe takes whole, and without that line it ends and does nothing.
"""

from __future__ import annotations

import os

from krun_iptables.kernel_program import Program, fill, find

TYPE_CHECKING = False
if TYPE_CHECKING:
    from krun_iptables.kernel_program import Done

TEXT = "/proc/self/fd/3"
LINE = f'include "{TEXT}"\n'.encode()
STDIN = "/dev/stdin"


class Waiting:
    """Starts one, where there is an nft."""

    def __init__(self) -> None:
        path = find("nft")
        self.is_there = bool(path)
        if not path:
            return
        self._text = os.memfd_create("text")
        reads, self._line = os.pipe()
        try:
            self._program = Program([path, "-f", "-"], stdin=reads, more=(self._text,))
        finally:
            os.close(reads)

    def put(self, text: str) -> Done:
        """Give it the text, and wait for its end; its messages name a line of that text. Raises DeadlinePassed."""
        fill(self._text, text)
        os.write(self._line, LINE)
        self._leave()
        done = self._program.finish()
        lines = (line for line in done.complained.splitlines() if not line.startswith("In file included from "))
        return done.but(complained="\n".join(lines).replace(TEXT, STDIN))

    def close(self) -> None:
        """End it without a text, if it has got none."""
        if self.is_there:
            self._leave()
            self._program.finish()

    def _leave(self) -> None:
        self.is_there = False
        os.close(self._line)
        os.close(self._text)
