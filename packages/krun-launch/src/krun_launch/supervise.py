"""Carries out a plan: takes the steps of the start, watches over what runs, and ends it in order.

One loop, without threads and asyncio: a signal or a death is acted on at once, whatever is being waited for.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from krun_launch import below, prctl, signals
from krun_launch.errors import DeadlinePassed, Failure, Misconfigured, Unreachable
from krun_launch.loop import Died, Loop, Signalled
from krun_launch.parts import Parts
from krun_launch.plan import APP, HBONED, SSHD, Plan, Step
from krun_launch.signals import ENDING, HARMLESS, Signals
from krun_launch.spawn import SHARED, CannotRun, NotFound, ProcessSpec
from krun_launch.startup_probe import Probe

if TYPE_CHECKING:
    from krun_launch.certificates import Keeper
    from krun_launch.probe import Exchange

log = logging.getLogger(__name__)

ATTEMPT = 5.0  # seconds for one answer of a probe
PAUSES = (0.002, 0.05)  # seconds between attempts: the shortest, and the longest
LATE = 0.05  # of the time waited so far: how much later than it could a step may go on
REFRESH = 2.0  # seconds between looks at the certificates


@dataclass(frozen=True, kw_only=True)
class Cause:
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
    ) -> None:
        self.plan = plan
        self.loop = Loop(signals)
        self.parts = Parts()
        self.pending: deque[int] = deque()
        self.step = "start"
        self.is_ready = False
        self.is_ending = False
        self.is_public_idle = False  # hboned drains, and no public request is under way
        if init is not None:
            # Nothing is read from it: poll(2) reports by itself that the other end of the pipe is gone. An init that
            # is our parent would tell us by SIGTERM too, which then looks like a second one.
            prctl.outlive_parent()
            self.loop.watch(init, 0, lambda: self._init_died(init))
        self._keeper = keeper
        self._is_shared = any(spec.group == SHARED for spec in plan.processes)
        self._start = time.monotonic()
        # Alone with its application, krun-launch says no more than its one warning.
        self.level = logging.INFO if plan.status_host else logging.DEBUG

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
            # Late: the application starts sooner.
            from krun_launch.ending import Ending

            return Ending(self, cause=cause).run()
        finally:
            if count := below.sweep():
                # What an application that ended, or went into the background, has left.
                log.log(self.level, "killed what was left", extra={"fields": {"count": count}})
            if status is not None:
                status()

    def state(self) -> Mapping[str, object]:
        """What /readyz tells."""
        return {**self._mode(), "ready": self.is_ready, "step": self.step}

    def _mode(self) -> dict[str, object]:
        way = {"interception": self.plan.interception} if self.plan.interception else {}
        return {"mode": self.plan.mode, **way}

    def _init_died(self, pipe: int) -> None:
        """The init was killed, in a place where the kernel does not end all with it: we do, in order."""
        self.loop.unwatch(pipe)
        # In an end that is under way it would be a second signal, and cut it short.
        if not self.is_ending:
            log.warning("krun-launch --init above is gone: ending")
            self.pending.append(signal.SIGTERM)

    def _serve_status(self) -> Callable[[], None] | None:
        if not self.plan.status_host:
            return None
        # Late: mode none has no status port.
        from krun_launch.status import Status

        host, port = self.plan.status_host, self.plan.settings.status_port
        try:
            return Status(host=host, port=port, loop=self.loop, state=self.state).close
        except OSError as error:
            # It was free a moment ago (ports.check).
            raise Misconfigured(f"status port {port} on {host}: {error.strerror}") from None

    def _live(self) -> Cause:
        try:
            for step in self.plan.steps:
                self._take(step)
            self._set_ready()
            while True:
                self.turn(None if self._keeper is None else REFRESH)
                if self._keeper is not None:
                    self._keeper.refresh()
        except Ended as ended:
            return ended.cause
        except Failure as failure:
            return Cause(reason=failure.message, failure=failure)

    def _take(self, step: Step) -> None:
        self.step = step.name
        # A signal must not be overtaken by the next process.
        self.turn(0)
        if step.start is not None:
            self._spawn(step.start)
        if step.checks_certificates and self._keeper is not None:
            self._keeper.verify()
        if step.writes_resolver:
            # Late: only what is captured has names of its own.
            from krun_launch import resolver

            resolver.replace(self.plan.resolver)
        if step.wait is not None:
            self._wait(step, step.wait)
        log.log(self.level, "step done", extra={"fields": {"step": step.name, "at_ms": self._at_ms()}})

    def _spawn(self, spec: ProcessSpec) -> None:
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
        self.is_ready = True
        self.step = "ready"
        log.log(self.level, "ready", extra={"fields": {**self._mode(), "at_ms": self._at_ms()}})

    def _at_ms(self) -> int:
        return round((time.monotonic() - self._start) * 1000)

    def _wait(self, step: Step, probe: Probe) -> None:
        start = time.monotonic()
        deadline = start + step.timeout
        shortest, longest = PAUSES
        while not self._is_up(probe, limit=min(ATTEMPT, deadline - time.monotonic())):
            left = deadline - time.monotonic()
            if left <= 0:
                raise DeadlinePassed(
                    f"{step.name}: {step.part} did not answer on {probe} within {step.timeout:g} s",
                    hint=f"see what {step.part} says above; {step.setting} sets the limit",
                )
            pause = (time.monotonic() - start) * LATE
            self.turn(min(max(pause, shortest), longest, left))

    def _is_up(self, probe: Probe, *, limit: float) -> bool:
        # Late: mode none asks nobody.
        from krun_launch.probe import Exchange

        exchange = Exchange(host=probe.host, port=probe.port, path=probe.path)
        self.ask(exchange, limit=limit)
        return 200 <= exchange.status < 400 if probe.path else exchange.is_connected

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
        for name in self.collect(timeout):
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
                    dead += [name] if name else []
        # The application's own end explains the others'.
        return sorted(dead, key=lambda name: name != APP)

    def _on_death(self, name: str) -> None:
        status = self.parts.statuses[name]
        if name == APP:
            raise Ended(Cause(reason=f"the application {ending_of(status)}"))
        if name == SSHD:
            log.warning("krun-sshd died: no debug shell from now on", extra={"fields": {"status": status}})
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


def ending_of(status: int) -> str:
    """How a process ended, in words."""
    if status > 128 and not signals.name(status - 128).isdecimal():
        return f"ended with status {status} ({signals.name(status - 128)})"
    return f"ended with status {status}"
