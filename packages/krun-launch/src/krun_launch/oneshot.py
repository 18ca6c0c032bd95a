"""One process that is run to its end: what it says is passed on, and what it fails of becomes our failure."""

from __future__ import annotations

import os
import select
import time

from krun_launch.errors import DeadlinePassed, Denied, Exit, Failure, Malformed, Misconfigured, Unreachable
from krun_launch.loop import Loop
from krun_launch.parts import Parts, ending_of
from krun_launch.said import Said
from krun_launch.spawn import ProcessSpec

# Its status becomes ours where it speaks of the world; a status that speaks of itself is the end of a part.
KINDS: dict[int, type[Failure]] = {
    Exit.USAGE: Misconfigured,
    Exit.MALFORMED: Malformed,
    Exit.UNREACHABLE: Unreachable,
    Exit.DEADLINE: DeadlinePassed,
    Exit.DENIED: Denied,
    Exit.MISCONFIGURED: Misconfigured,
}


class OneShot:
    """Starts it; the owner calls ``end`` with its status when it has ended.

    Raises NotFound or CannotRun, as spawn does.
    """

    def __init__(self, spec: ProcessSpec, *, loop: Loop, parts: Parts) -> None:
        self.spec = spec
        self.status: int | None = None
        self.started = time.monotonic()
        self._said = Said()
        self._loop = loop
        self._reader, writer = os.pipe()
        os.set_blocking(self._reader, False)
        try:
            parts.start(spec.but(stderr=writer))
        except BaseException:
            os.close(self._reader)
            raise
        finally:
            os.close(writer)
        loop.watch(self._reader, select.POLLIN, self._read)

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def has_ended(self) -> bool:
        return self.status is not None

    def end(self, status: int) -> None:
        """Note how it ended, and take the last that it said: a process below it may hold the pipe for longer."""
        self.status = status
        while self._read():
            pass
        self._said.finish(is_failure=status != 0)
        self._loop.unwatch(self._reader)
        os.close(self._reader)

    def failure(self, *, step: str = "") -> Failure | None:
        """What it failed of, in a step of the start or by itself; None when it has not failed."""
        if not self.status:
            return None
        kind, where = KINDS.get(self.status, Unreachable), f"{step}: " if step else ""
        if self._said.cause:
            return kind(f"{where}{self._said.cause}", hint=self._said.hint)
        return kind(f"{where}{self.name} {ending_of(self.status)}", hint=f"see what {self.name} says above")

    def _read(self) -> bool:
        """Take what there is; False when there is nothing more for now, or for ever."""
        try:
            data = os.read(self._reader, 65536)
        except BlockingIOError:
            return False
        self._said.feed(data)
        if not data:
            self._loop.unwatch(self._reader)
        return bool(data)
