"""The order of the end: which step follows which (pure), and the taking of the steps within the time that is given."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Callable, Collection

from krun_launch import lines, signals
from krun_launch.contract import PORTS
from krun_launch.plan import AGENT, APP, ENVOY, HBONED, NAMES, SSHD
from krun_launch.signals import ENDING, FORWARDED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from krun_launch.probe import Exchange
    from krun_launch.supervise import Cause, Supervisor

QUICK = 1.0  # seconds that a helper has when nobody needs it any more
ADMIN = 0.5  # seconds for an answer of Envoy's admin port
SEEN = 0.05  # seconds between two equal signals
POLL = 0.03  # seconds between looks at the requests under way

DRAIN = "/drain_listeners?graceful&inboundonly&skip_exit"
# The agent drains Envoy in the same way, and then does not wait when it is told to end.
AGENT_DRAIN = "/drain"
QUIT = "/quitquitquit"
SILENCE = "/logging?level=off"
# The gauges of inbound listeners, ours and istiod's: ^http\.[iI]nbound.*\.downstream_rq_active$
ACTIVE = "/stats?filter=%5Ehttp%5C.%5BiI%5Dnbound.*%5C.downstream_rq_active%24"
COUNT = re.compile(r"downstream_rq_active: (\d+)")

HELPERS = (SSHD, ENVOY, AGENT, NAMES)
PARTS = (APP, HBONED, *HELPERS)
NOT_READY = "not ready"
NO_NEW_TUNNELS = "no new tunnels"
ENVOY_DRAINS = "envoy drains"
INBOUND_ZERO = "inbound at zero"
APP_ENDS = "app ends"
TUNNELS_CLOSE = "tunnels close"
HELPERS_END = "helpers end"


def order(*, alive: Collection[str], was_up: bool) -> tuple[str, ...]:
    """The steps of an end.

    Args:
        alive: the parts that run.
        was_up: inbound traffic may be under way: the start had come to its end, and the application has not.
    """
    steps = [NOT_READY]
    if was_up and HBONED in alive:
        steps.append(NO_NEW_TUNNELS)
    if was_up and (ENVOY in alive or AGENT in alive):
        steps += [ENVOY_DRAINS, INBOUND_ZERO]
    if APP in alive:
        steps.append(APP_ENDS)
    if HBONED in alive:
        steps.append(TUNNELS_CLOSE)
    if any(name in alive for name in HELPERS):
        steps.append(HELPERS_END)
    return tuple(steps)


class _Now(Exception):
    """A second signal: no more order."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class _Late(Exception):
    """The time is over."""


class Ending:
    """One end, from its cause to the exit status."""

    def __init__(self, supervisor: Supervisor, *, cause: Cause) -> None:
        self._supervisor = supervisor
        self._plan = supervisor.plan
        self._parts = supervisor.parts
        self._cause = cause
        self._start = time.monotonic()
        self._asked = 1 if cause.signal in ENDING else 0  # how often an end was asked for
        self._was_ready = supervisor.was_ready
        self._has_no_new_tunnels = False
        # An application that ends by itself, with nothing around it, needs no words.
        self._level = lines.INFO if cause.signal or cause.failure else supervisor.level
        self._actions: dict[str, Callable[[], None]] = {
            NOT_READY: self._not_ready,
            NO_NEW_TUNNELS: self._no_new_tunnels,
            ENVOY_DRAINS: self._envoy_drains,
            INBOUND_ZERO: self._inbound_zero,
            APP_ENDS: self._app_ends,
            TUNNELS_CLOSE: self._tunnels_close,
            HELPERS_END: self._helpers_end,
        }

    def run(self) -> int:
        """End all parts and return the exit status.

        Raises:
            Failure: the one that is the cause.
        """
        lines.write(self._level, "ending", reason=self._cause.reason)
        try:
            self._in_order()
            status = self._status()
        except _Now as now:
            # The application's own status, if it had one before it was killed.
            status = self._parts.statuses.get(APP, 128 + now.number)
            lines.warning("second signal: killed", **self._fields(signal=signals.name(now.number)))
            self._kill()
        failure = self._cause.failure
        status = status if failure is None else int(failure.exit_code)
        lines.write(self._level, "ended", **self._fields(status=status))
        if failure is not None:
            raise failure
        return status

    def _in_order(self) -> None:
        alive = {name for name in PARTS if self._parts.is_alive(name)}
        was_up = self._was_ready and (APP in alive or not self._plan.has_app)
        try:
            # Signals that came together with the cause.
            self._act_on_signals()
            for step in order(alive=alive, was_up=was_up):
                self._supervisor.step = step
                self._actions[step]()
                lines.write(self._level, "end step done", **self._fields(step=step))
        except _Late:
            left = [name for name in PARTS if self._parts.is_alive(name)]
            lines.warning("grace is over: killed", **self._fields(part=", ".join(left)))
            self._kill()

    def _status(self) -> int:
        if (status := self._parts.statuses.get(APP)) is not None:
            return status
        # A sidecar that was asked to end, and drained, has done its work.
        return 0 if self._was_ready and not self._plan.has_app else 128 + self._cause.signal

    def _fields(self, **more: object) -> dict[str, object]:
        return {**more, "at_ms": round((time.monotonic() - self._start) * 1000)}

    def _not_ready(self) -> None:
        self._supervisor.is_ready = False

    def _no_new_tunnels(self) -> None:
        self._has_no_new_tunnels = True
        self._parts.signal(HBONED, signal.SIGTERM)

    def _envoy_drains(self) -> None:
        if self._parts.is_alive(AGENT):
            self._ask(AGENT_DRAIN, port=PORTS["AGENT_STATUS"], method="POST")
        else:
            self._ask(DRAIN, method="POST")

    def _inbound_zero(self) -> None:
        until = time.monotonic() + self._plan.settings.drain
        # The public's requests pass hboned only, the mesh's pass both.
        while (
            time.monotonic() < until
            and (self._supervisor.has_public_requests or self._active())
            and (self._parts.is_alive(APP) or not self._plan.has_app)
        ):
            self._turn(min(POLL, max(0.0, until - time.monotonic())))

    def _active(self) -> int:
        """Requests under way; none when Envoy does not tell."""
        return sum(int(count) for count in COUNT.findall(self._ask(ACTIVE).body))

    def _app_ends(self) -> None:
        number = self._cause.signal if self._cause.signal in ENDING else signal.SIGTERM
        self._parts.signal(APP, number)
        self._wait_for(APP, limit=None)

    def _tunnels_close(self) -> None:
        if not self._has_no_new_tunnels:
            self._no_new_tunnels()
            # Two signals of one kind at the same moment are one: the first must have been seen.
            self._wait_for(HBONED, limit=SEEN)
        # The application is gone; the last of what it answered may still be on its way out.
        until = time.monotonic() + QUICK
        while self._supervisor.has_public_requests and (left := until - time.monotonic()) > 0:
            self._turn(left)
        self._parts.signal(HBONED, signal.SIGTERM)
        self._end(HBONED)

    def _helpers_end(self) -> None:
        # Whatever is renewed at this moment is needed no more.
        shots = tuple(self._supervisor.shots)
        for name in (*shots, SSHD, NAMES):
            self._parts.signal(name, signal.SIGTERM)
        self._parts.signal(ENVOY, signal.SIGTERM if self._was_used() else signal.SIGKILL)
        if self._parts.is_alive(AGENT):
            self._agent_ends()
        self._end(*shots, *HELPERS)
        # Envoy, when its agent could not end it; and whoever else they had below them.
        for name in HELPERS:
            self._parts.end_group(name)

    def _was_used(self) -> bool:
        """An Envoy that nobody used yet has nothing to flush: its words about an end hide why a start failed."""
        return self._was_ready or APP in self._parts.statuses

    def _agent_ends(self) -> None:
        """The agent would kill its Envoy, with what that has not written yet; when Envoy ends by itself, both do."""
        if self._was_used():
            # All that it has to say is that it lost its agent.
            self._ask(SILENCE, method="POST")
            if self._ask(QUIT, method="POST").status == 200:
                return
        self._parts.signal(AGENT, signal.SIGKILL)

    def _end(self, *names: str) -> None:
        """Wait a short while, then kill."""
        self._wait_for(*names, limit=QUICK)
        for name in names:
            if self._parts.signal(name, signal.SIGKILL):
                lines.warning("killed", **self._fields(part=name))
        self._wait_for(*names, limit=QUICK)

    def _kill(self) -> None:
        """SIGKILL to every part, and their statuses."""
        names = [name for name in PARTS if self._parts.signal(name, signal.SIGKILL)]
        until = time.monotonic() + QUICK
        while any(self._parts.is_alive(name) for name in names) and time.monotonic() < until:
            self._supervisor.collect(QUICK)
        for name in HELPERS:
            self._parts.end_group(name)

    def _wait_for(self, *names: str, limit: float | None) -> None:
        until = None if limit is None else time.monotonic() + limit
        while any(self._parts.is_alive(name) for name in names):
            left = 60.0 if until is None else until - time.monotonic()
            if left <= 0:
                return
            self._turn(left)

    def _ask(self, path: str, *, port: int = PORTS["ENVOY_ADMIN"], method: str = "GET") -> Exchange:
        """One question to Envoy's admin interface, or to the agent."""
        # Late: only needed when there is an Envoy.
        from krun_launch.probe import Exchange

        host = self._plan.settings.loopback
        exchange = Exchange(host=host, port=port, path=path, method=method, wants_body=True)
        self._supervisor.ask(exchange, limit=ADMIN, turn=self._turn)
        return exchange

    def _turn(self, timeout: float) -> None:
        """One turn of the loop, cut short at the end of the grace."""
        left = self._start + self._plan.settings.kill_after - time.monotonic()
        if left <= 0:
            raise _Late
        for name in self._supervisor.collect(min(timeout, left)):
            # hboned ends by itself when its last tunnel does; Envoy's death cuts requests that were waited for.
            if name in (ENVOY, AGENT, NAMES) and self._supervisor.step != HELPERS_END:
                lines.warning("died before its turn", **self._fields(part=name, step=self._supervisor.step))
        self._act_on_signals()

    def _act_on_signals(self) -> None:
        while self._supervisor.pending:
            number = self._supervisor.pending.popleft()
            if number in FORWARDED:
                self._parts.signal(APP, number)
                continue
            self._asked += 1
            if self._asked > 1:
                raise _Now(number)
