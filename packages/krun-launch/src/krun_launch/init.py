"""``krun-launch --init -- CMD``: a small PID 1 that reaps, and brings signals to the krun-launch below it.

A shell between the two (``sh -c 'krun-discover | krun-launch -- app'``) drops SIGTERM or dies of it, and hides the
status of krun-discover. Both come here by a pipe instead, whose number is in KRUN_INIT_FD: ``launch PID`` from
krun-launch, ``failed TOOL STATUS`` from every tool that fails.
"""

from __future__ import annotations

import contextlib
import os
import select
from collections.abc import Mapping

from krun_launch import below, prctl
from krun_launch.errors import Exit
from krun_launch.loop import Died, Loop, Signalled
from krun_launch.signals import Signals
from krun_launch.spawn import FOREGROUND, GROUP, ProcessSpec, is_on_terminal, spawn

LINE_LIMIT = 4096  # bytes of a line that has not ended; a report is short


class Reports:
    """What the tools below have said. Pure: bytes in, state out."""

    def __init__(self) -> None:
        self.launch: int | None = None
        self.failed: list[tuple[str, int]] = []
        self._rest = b""

    def feed(self, data: bytes) -> None:
        """Take bytes as they come; a line that is not understood is passed over."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        self._rest = self._rest[-LINE_LIMIT:]
        for line in lines:
            match line.decode("ascii", errors="replace").split():
                case ["launch", pid] if _is_number(pid):
                    self.launch = int(pid)
                case ["failed", tool, status] if _is_number(status):
                    self.failed.append((tool, int(status)))

    def status(self, own: int) -> int:
        """The status to end with, when the command ended with ``own``.

        A krun-launch that found nothing on its stdin (78) only shows that the tool before the pipe failed: that one's
        status tells more.
        """
        if own == 0 or ("krun-launch", int(Exit.MISCONFIGURED)) not in self.failed:
            return own
        return next((status for tool, status in self.failed if tool != "krun-launch" and status), own)


def _is_number(text: str) -> bool:
    """Tell a pid or status from what anybody may write; int() refuses thousands of digits."""
    return text.isdecimal() and len(text) < 10


class Init:
    """One command and what it leaves behind."""

    def __init__(self, signals: Signals) -> None:
        self._loop = Loop(signals)
        self._reports = Reports()
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        self._loop.watch(self._reader, select.POLLIN, self._read)
        self._main = 0

    def run(self, command: tuple[str, ...], *, env: Mapping[str, str]) -> int:
        """Run the command to its end, and return its exit status, or that of the tool whose failure it hides.

        Raises:
            NotFound, CannotRun: it could not be started.
        """
        prctl.adopt_orphans()
        spec = ProcessSpec(
            name="init",
            argv=command,
            env={**env, "KRUN_INIT_FD": str(self._writer)},
            # Ctrl-C and an interactive shell work below us as they would without us.
            group=FOREGROUND if is_on_terminal() else GROUP,
            inherited_fds=(self._writer,),
        )
        try:
            self._main = spawn(spec)
            os.close(self._writer)
            status = self._wait()
            self._read()
        finally:
            below.sweep()
        return self._reports.status(status)

    def _wait(self) -> int:
        """Until the command has ended, and a krun-launch that outlived its shell."""
        # Only of these two: orphans come and go for as long as we live, and a pid comes again.
        statuses: dict[int, int] = {}
        while True:
            for event in self._loop.turn(None):
                match event:
                    case Signalled(number=number):
                        self._forward(number)
                    case Died(pid=pid, status=status):
                        # A krun-launch may have reported just before it died.
                        self._read()
                        if pid in (self._main, self._reports.launch):
                            statuses[pid] = status
            if self._main in statuses:
                launch = self._reports.launch
                if launch is None or launch not in below.below(os.getpid()):
                    # Orphaned by a shell that died, krun-launch became ours: it has the application's status.
                    return statuses[self._main] if launch is None else statuses.get(launch, statuses[self._main])

    def _forward(self, number: int) -> None:
        launch = self._reports.launch
        if launch is not None and launch in below.below(os.getpid()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(launch, number)
            return
        # Before krun-launch has reported, all that runs is the shell's: its whole group.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._main, number)

    def _read(self) -> None:
        try:
            data = os.read(self._reader, 4096)
        except BlockingIOError:
            return
        if not data:
            self._loop.unwatch(self._reader)
        self._reports.feed(data)
