"""Takes the steps of the start, one after the other, while the supervisor's loop goes on; those of one part again."""

from __future__ import annotations

import time

from krun_launch import lines
from krun_launch.errors import DeadlinePassed, Failure
from krun_launch.parts import ending_of
from krun_launch.plan import APP, Diagnosis, Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from krun_launch.certificates import Keeper
    from krun_launch.spawn import ProcessSpec
    from krun_launch.startup_probe import Probe
    from krun_launch.supervise import Supervisor

ATTEMPT = 5.0  # seconds for one answer of a probe
PAUSES = (0.002, 0.05)  # seconds between attempts: the shortest, and the longest
LATE = 0.02  # of the time waited so far: how much later than it could a step may go on


class Start:
    """Raises, as the supervisor's ``turn`` does, Ended; and Failure: a part could not be started or did not answer."""

    def __init__(self, supervisor: Supervisor, *, keeper: Keeper | None) -> None:
        self._supervisor = supervisor
        self._keeper = keeper

    def run(self) -> None:
        """Take all steps."""
        for step in self._supervisor.plan.steps:
            self._take(step)
        # Of a sidecar, too.
        self._supervisor.upkeep.follow_clusters()

    def _take(self, step: Step) -> None:
        supervisor, began = self._supervisor, time.monotonic()
        supervisor.step = step.name
        # A signal must not be overtaken by the next process.
        self._explained(step, lambda: supervisor.turn(0))
        if step.part == APP:
            supervisor.upkeep.follow_clusters()
        if step.run is not None:
            self._run(step, step.run)
        if step.start is not None:
            supervisor.spawn(step.start)
            # After it: whoever boots does so meanwhile.
            supervisor.upkeep.keep_credentials()
        if step.checks_certificates and self._keeper is not None:
            self._keeper.verify()
        if step.writes_resolver:
            # Late: only what is captured has names of its own.
            from krun_launch import resolver

            resolver.replace(supervisor.plan.resolver)
        if step.wait is not None:
            self._wait(step, step.wait)
        supervisor.seconds[step.name] = time.monotonic() - began
        lines.write(supervisor.level, "step done", step=step.name, at_ms=supervisor.at_ms)

    def _run(self, step: Step, spec: ProcessSpec) -> None:
        """Run a process to its end, while the loop goes on."""
        supervisor = self._supervisor
        shot = supervisor.run_beside(spec)
        # What the next steps need, while this one is waited for.
        from krun_launch import agent_log, probe, roots, tasks  # noqa: F401

        until = time.monotonic() + step.timeout
        while not shot.has_ended:
            if (left := until - time.monotonic()) <= 0:
                supervisor.kill(spec.name)
                hint = f"see what {spec.name} says above"
                raise DeadlinePassed(
                    f"{step.name}: {spec.name} has not ended within {step.timeout:g} s",
                    hint=f"{hint}; {step.setting} sets the limit" if step.setting else hint,
                )
            supervisor.turn(left)
        if failure := shot.failure(step=step.name):
            raise failure

    def again(self, name: str) -> None:
        """Start a part that died as it was started the first time, and wait until it is up."""
        supervisor = self._supervisor
        supervisor.restarts[name] = supervisor.restarts.get(name, 0) + 1
        supervisor.step = f"{name} again"
        # Whatever it left holds its ports.
        while supervisor.parts.end_group(name):
            supervisor.turn(PAUSES[1])
        for step in supervisor.plan.steps:
            if step.start is not None and step.start.name == name:
                supervisor.spawn(step.start)
            if step.part == name and step.wait is not None:
                self._wait(step, step.wait)

    def _wait(self, step: Step, probe: Probe) -> None:
        try:
            self._explained(step, lambda: self._until_up(step, probe))
        except DeadlinePassed:
            if step.diagnosis is None:
                raise
            raise self._diagnosed(step.diagnosis, step=step) from None

    def _explained(self, step: Step, act: Callable[[], None]) -> None:
        """Do it; when the part that the step waits for dies meanwhile, its own words say why."""
        # Late: the supervisor makes us.
        from krun_launch.supervise import Cause, Ended

        try:
            act()
        except Ended as ended:
            status = self._supervisor.parts.statuses.get(step.part)
            if step.diagnosis is None or ended.cause.failure is None or status is None:
                raise
            failure = self._diagnosed(step.diagnosis, step=step, ended=ending_of(status))
            raise Ended(Cause(reason=failure.message, failure=failure)) from None

    def _diagnosed(self, diagnosis: Diagnosis, *, step: Step, ended: str = "") -> Failure:
        # Late: only when something went wrong.
        from krun_launch import istio_diagnosis

        self._supervisor.let_go()
        return istio_diagnosis.failure(diagnosis, step=step, ended=ended)

    def _until_up(self, step: Step, probe: Probe) -> None:
        start = time.monotonic()
        deadline = start + step.timeout
        shortest, longest = PAUSES
        while not self._is_up(probe, limit=min(ATTEMPT, deadline - time.monotonic())):
            if self._supervisor.fallen:
                return  # a part that was started again has died again
            left = deadline - time.monotonic()
            if left <= 0:
                raise DeadlinePassed(
                    f"{step.name}: {step.part} did not answer on {probe} within {step.timeout:g} s",
                    hint=f"see what {step.part} says above; {step.setting} sets the limit",
                )
            pause = (time.monotonic() - start) * LATE
            self._supervisor.turn(min(max(pause, shortest), longest, left))

    def _is_up(self, probe: Probe, *, limit: float) -> bool:
        # Late: mode none asks nobody.
        from krun_launch.probe import Exchange

        exchange = Exchange(host=probe.host, port=probe.port, path=probe.path)
        self._supervisor.ask(exchange, limit=limit)
        return 200 <= exchange.status < 400 if probe.path else exchange.is_connected
