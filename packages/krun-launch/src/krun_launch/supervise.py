"""Carries out a plan: takes the steps of the start, watches over what runs, and ends it in order.

One loop, without threads and asyncio: a signal or a death is acted on at once, whatever is being waited for.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections import deque
from collections.abc import Callable

from krun_launch import below, lines, prctl, signals
from krun_launch.errors import Failure, Misconfigured, Unreachable
from krun_launch.loop import Died, Loop, Signalled
from krun_launch.parts import Parts, ending_of
from krun_launch.plan import AGENT, APP, ENVOY, HBONED, SSHD, Plan
from krun_launch.record import Record
from krun_launch.signals import ENDING, HARMLESS, Signals
from krun_launch.spawn import SHARED, CannotRun, NotFound, ProcessSpec
from krun_launch.start import Start
from krun_launch.upkeep import Upkeep

TYPE_CHECKING = False
if TYPE_CHECKING:
    from krun_launch.certificates import Keeper
    from krun_launch.oneshot import OneShot
    from krun_launch.probe import Exchange
    from krun_launch.stay import Stay

RESTARTABLE = (ENVOY, AGENT)
MOMENT = 0.1  # seconds


class Cause(Record):
    """Why all ends: a signal, a failure, or (neither) the end of the application."""

    reason: str
    signal: int = 0
    failure: Failure | None = None


class Ended(Exception):
    """Leaves the start or the watch."""

    def __init__(self, cause: Cause) -> None:
        super().__init__(cause.reason)
        self.cause = cause


class Supervisor:
    """What runs, and how far it is; ``run`` returns the exit status or raises the failure that ended it all."""

    def __init__(
        self,
        plan: Plan,
        *,
        signals: Signals,
        init: int | None = None,
        keeper: Keeper | None = None,
        stay: Stay | None = None,
    ) -> None:
        self.plan = plan
        self.loop = Loop(signals)
        self.parts = Parts(stay=stay)
        self.pending: deque[int] = deque()
        self.step = "start"
        self.is_ready = False
        self.is_ending = False
        self.is_public_idle = False  # hboned drains, and no public request is under way
        self.seconds: dict[str, float] = {}  # that each step of the start took
        self.restarts: dict[str, int] = {}  # by part
        self.shots: dict[str, OneShot] = {}  # what is run to its end, now
        self.upkeep = Upkeep(self, keeper=keeper)
        if init is not None:
            # Nothing is read from it: poll(2) reports by itself that the other end of the pipe is gone. An init that
            # is our parent would tell us by SIGTERM too, which then looks like a second one.
            prctl.outlive_parent()
            self.loop.watch(init, 0, lambda: self._init_died(init))
        self._keeper = keeper
        self._is_shared = any(spec.group == SHARED for spec in plan.processes)
        self._start = time.monotonic()
        self.was_ready = False
        self.fallen: deque[str] = deque()  # parts to be started again
        # Alone with its application, krun-launch says no more than its one warning.
        self.level = lines.INFO if plan.status_host else lines.DEBUG

    def run(self) -> int:
        """Start, watch, end; nothing that was started is left, whatever happens.

        Raises:
            Failure: a part could not be started, died, or did not answer in time.
        """
        prctl.adopt_orphans()
        status = self._serve_status()
        try:
            cause = self._live()
            self.is_ending = True
            self.upkeep.close()
            # Late: the application starts sooner.
            from krun_launch.ending import Ending

            return Ending(self, cause=cause).run()
        finally:
            self.let_go()
            if count := below.sweep():
                # What an application that ended, or went into the background, has left.
                lines.write(self.level, "killed what was left", count=count)
            if status is not None:
                status()

    def let_go(self) -> None:
        """What passed the agent's words on ends by itself, a moment after the last of them."""
        until = time.monotonic() + (MOMENT if AGENT in self.parts.statuses else 0)
        while below.has_children() and (left := until - time.monotonic()) > 0:
            self.collect(left)

    def _mode(self) -> dict[str, object]:
        way = {"interception": self.plan.interception} if self.plan.interception else {}
        return {"mode": self.plan.mode, **way}

    def _init_died(self, pipe: int) -> None:
        """The init was killed, in a place where the kernel does not end all with it: we do, in order."""
        self.loop.unwatch(pipe)
        # In an end that is under way it would be a second signal, and cut it short.
        if not self.is_ending:
            lines.warning("krun-launch --init above is gone: ending")
            self.pending.append(signal.SIGTERM)

    def _serve_status(self) -> Callable[[], None] | None:
        if not self.plan.status_host:
            return None
        # Late: mode none has no status port.
        from krun_launch import report
        from krun_launch.status import Status

        host, port = self.plan.status_host, self.plan.settings.status_port
        try:
            return Status(host=host, port=port, loop=self.loop, pages=report.pages(self)).close
        except OSError as error:
            # It was free a moment ago (ports.check).
            raise Misconfigured(f"status port {port} on {host}: {error.strerror}") from None

    def _live(self) -> Cause:
        try:
            start = Start(self, keeper=self._keeper)
            start.run()
            self._set_ready()
            while True:
                self.turn(None)
                while self.fallen:
                    start.again(self.fallen.popleft())
                if not self.is_ready:
                    self._set_ready()
        except Ended as ended:
            return ended.cause
        except Failure as failure:
            return Cause(reason=failure.message, failure=failure)

    def run_beside(self, spec: ProcessSpec) -> OneShot:
        """Start a process that is to run to its end; the loop takes what it says.

        Raises:
            Misconfigured: it is not there, or cannot be executed.
        """
        # Late: without a control plane nothing is run to its end.
        from krun_launch.oneshot import OneShot

        try:
            self.shots[spec.name] = shot = OneShot(spec, loop=self.loop, parts=self.parts)
        except (NotFound, CannotRun) as error:
            raise Misconfigured(error.message, hint=error.hint) from None
        return shot

    def kill(self, name: str) -> None:
        """End a part at once."""
        self.parts.signal(name, signal.SIGKILL)

    def spawn(self, spec: ProcessSpec) -> None:
        """Start a part.

        Raises:
            Failure: it is not there, or cannot be executed.
        """
        try:
            self.parts.start(spec)
            if (pipe := self.parts.pipes.get(spec.name)) is not None:
                self.loop.watch(pipe, select.POLLIN, lambda: self._notified(pipe))
        except (NotFound, CannotRun) as error:
            # 126 and 127 speak of the application only.
            if spec.name == APP:
                raise
            raise Misconfigured(error.message, hint=error.hint) from None

    def _notified(self, pipe: int) -> None:
        """What hboned says of itself (docs/process.md): ``ready``, ``idle``."""
        try:
            data = os.read(pipe, 4096)
        except BlockingIOError:
            return
        if not data:
            self.loop.unwatch(pipe)
        self.is_public_idle = self.is_public_idle or b"idle\n" in data

    @property
    def has_public_requests(self) -> bool:
        """Whether requests of the public may be under way in hboned, while it drains."""
        return self.parts.is_alive(HBONED) and not self.is_public_idle

    def _set_ready(self) -> None:
        self.is_ready = self.was_ready = True
        self.step = "ready"
        lines.write(self.level, "ready", **self._mode(), at_ms=self.at_ms)

    @property
    def at_ms(self) -> int:
        return round((time.monotonic() - self._start) * 1000)

    def ask(self, exchange: Exchange, *, limit: float, turn: Callable[[float], None] | None = None) -> None:
        """Carry out one exchange within so many seconds, while the loop goes on."""
        until = time.monotonic() + limit
        descriptor = exchange.fileno()
        try:
            while not exchange.is_done and (left := until - time.monotonic()) > 0:
                self.loop.watch(descriptor, exchange.events, exchange.advance)
                (turn or self.turn)(left)
        finally:
            self.loop.unwatch(descriptor)
            exchange.close()

    def turn(self, timeout: float | None) -> None:
        """One turn of the loop.

        Raises:
            Ended: something happened that ends all. Nothing is lost by it: signals not acted on stay in ``pending``.
        """
        left = self.upkeep.act()
        for name in self.collect(left if timeout is None else min(timeout, left)):
            self._on_death(name)
        while self.pending:
            self._on_signal(self.pending.popleft())

    def collect(self, timeout: float | None) -> list[str]:
        """Wait, put signals into ``pending``, and return the names of the parts that ended."""
        dead: list[str] = []
        for event in self.loop.turn(timeout):
            match event:
                case Signalled(number=number):
                    self.pending.append(number)
                case Died():
                    name = self.parts.collect(event)
                    if name in self.shots:
                        self.shots.pop(name).end(event.status)
                    elif name:
                        dead.append(name)
        # The application's own end explains the others'.
        return sorted(dead, key=lambda name: name != APP)

    def _on_death(self, name: str) -> None:
        status = self.parts.statuses[name]
        if name == APP:
            raise Ended(Cause(reason=f"the application {ending_of(status)}"))
        if name == SSHD:
            lines.warning("krun-sshd died: no debug shell from now on", status=status)
            return
        restarts = self.restarts.get(name, 0)
        if self.was_ready and name in RESTARTABLE and restarts < self.plan.settings.restarts:
            self.is_ready = False
            self.fallen.append(name)
            lines.warning("died, started again", part=name, status=status, count=restarts + 1)
            return
        when = "" if self.is_ready else f" before step {self.step!r} was done"
        failure = Unreachable(f"{name} {ending_of(status)}{when}", hint=f"see what {name} says above")
        raise Ended(Cause(reason=f"{name} {ending_of(status)}", failure=failure))

    def _on_signal(self, number: int) -> None:
        if self.parts.is_alive(APP):
            if self._is_shared and number in signals.FROM_TERMINAL:
                return
            if number not in ENDING:
                self.parts.signal(APP, number)
                return
        elif number in HARMLESS or (not self.plan.has_app and number in signals.WITHOUT_MEANING):
            return
        raise Ended(Cause(reason=signals.name(number), signal=number))
