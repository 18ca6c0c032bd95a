"""The processes that were started by name: which are alive, and how the others ended."""

from __future__ import annotations

import contextlib
import os
import signal

from krun_launch import lines, signals
from krun_launch.loop import Died
from krun_launch.spawn import SESSION, ProcessSpec, spawn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from krun_launch.stay import Stay


class Parts:
    """A register from name to process."""

    def __init__(self, *, stay: Stay | None = None) -> None:
        self._stay = stay
        self._pids: dict[str, int] = {}
        self._groups: dict[str, int] = {}  # of those that have one of their own
        self.pipes: dict[str, int] = {}  # where parts that notify are read
        self.statuses: dict[str, int] = {}

    def start(self, spec: ProcessSpec) -> int:
        """Start a part; the failures of exec are passed on."""
        taken = self._stay.take(spec) if self._stay else None
        self._pids[spec.name] = taken or (self._notifying(spec) if spec.notifies else spawn(spec))
        if spec.group == SESSION:
            self._groups[spec.name] = self._pids[spec.name]
        return self._pids[spec.name]

    def _notifying(self, spec: ProcessSpec) -> int:
        reader, writer = os.pipe()
        os.set_blocking(reader, False)
        try:
            pid = spawn(spec.notifying(writer))
        except BaseException:
            os.close(reader)
            raise
        finally:
            os.close(writer)
        self.pipes[spec.name] = reader
        return pid

    def is_alive(self, name: str) -> bool:
        return name in self._pids

    def signal(self, name: str, number: int) -> bool:
        """Send a signal to a part; False when it is not there."""
        pid = self._pids.get(name)
        if pid is None:
            return False
        # A part that has ended and was not collected yet is still ours: its pid cannot be another's.
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        return True

    def end_group(self, name: str) -> bool:
        """SIGKILL to what a part that has ended left in its process group; False when there is nothing."""
        group = self._groups.get(name)
        if group is None:
            return False
        try:
            os.killpg(group, signal.SIGKILL)
        except OSError:
            # Nobody is left. From now on the number may be another's.
            del self._groups[name]
            return False
        return True

    def collect(self, death: Died) -> str | None:
        """Note a death; the name of the part, or None for an orphan that we had adopted."""
        for name, pid in self._pids.items():
            if pid == death.pid:
                del self._pids[name]
                self.statuses[name] = death.status
                return name
        lines.debug("orphan reaped", pid=death.pid, status=death.status)
        return None


def ending_of(status: int) -> str:
    """How a process ended, in words."""
    if status > 128 and not signals.name(status - 128).isdecimal():
        return f"ended with status {status} ({signals.name(status - 128)})"
    return f"ended with status {status}"
