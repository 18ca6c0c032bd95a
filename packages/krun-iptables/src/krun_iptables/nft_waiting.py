"""An nft that is started before there is a text for it, so that its start costs no time.

Killed at any point, we leave all of the text to it or nothing: it is told of a text that is whole by one line, which a
pipe takes whole, and without that line it ends and does nothing.
"""

from __future__ import annotations

import os

from krun_iptables.errors import Unreachable
from krun_iptables.kernel_program import Program, fill, find, not_started

TYPE_CHECKING = False
if TYPE_CHECKING:
    from krun_iptables.kernel_program import Done

TEXT = "/proc/self/fd/3"
LINE = f'include "{TEXT}"\n'.encode()
STDIN = "/dev/stdin"


class Waiting:
    """Starts one, where there is an nft, and nothing is in the way: else another is started later, which says why."""

    def __init__(self) -> None:
        path = find("nft")
        self.is_there = False
        self._files: list[int] = []
        if not path:
            return
        try:
            self._text = os.memfd_create("text")
            self._files.append(self._text)
            reads, self._line = os.pipe()
            self._files.append(self._line)
            try:
                self._program = Program([path, "-f", "-"], stdin=reads, more=(self._text,))
            finally:
                os.close(reads)
        except (OSError, Unreachable):
            self._leave()
            return
        self.is_there = True

    def put(self, text: str) -> Done:
        """Give it the text, and wait for its end; its messages name a line of that text.

        Raises:
            DeadlinePassed, Unreachable: it has not ended in time, or cannot be given it.
        """
        is_told = True
        try:
            fill(self._text, text)
            os.write(self._line, LINE)
        except BrokenPipeError:
            is_told = False  # it has ended by itself, and said why
        except OSError as error:
            raise not_started("nft", error) from None
        self._leave()
        done = self._program.finish()
        if not is_told and not done.status:
            raise Unreachable("nft ended before it was told anything", hint="is the package whole?")
        lines = (line for line in done.complained.splitlines() if not line.startswith("In file included from "))
        return done.but(complained="\n".join(lines).replace(TEXT, STDIN))

    def close(self) -> None:
        """End it without a text, if it has got none."""
        if self.is_there:
            self._leave()
            self._program.finish()

    def _leave(self) -> None:
        self.is_there = False
        while self._files:
            os.close(self._files.pop())
