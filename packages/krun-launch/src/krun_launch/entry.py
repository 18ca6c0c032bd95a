"""The way into the mesh, as ``krun`` takes it: krun-discover finds it, krun-iptables applies the rules that are wanted.

Both are processes; what comes of them is the environment that the plan is made of.
"""

from __future__ import annotations

import contextlib
import math
import os
import select
import signal
import time

from krun_launch import environments, envjson
from krun_launch.envjson import Interrupted
from krun_launch.errors import Failure, Misconfigured
from krun_launch.signals import HARMLESS
from krun_launch.spawn import CannotRun, NotFound, ProcessSpec, find_own, helper, spawn, status_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import ClassVar

    from krun_launch.facts import Facts
    from krun_launch.signals import Signals
    from krun_launch.stay import Stay

DISCOVER = "krun-discover"
IPTABLES = "krun-iptables"
PATIENCE = 2.0  # seconds from SIGTERM to SIGKILL
# Of krun-iptables: what its status says of the rules.
OUTCOMES = {0: "redirect", 77: "none"}
# Words of Istio's tool for how it is done, some so common that they may be the application's: one would apply nothing.
MANNERS = (
    "DRY_RUN DRY_RUN_FILE_PATH SKIP_RULE_APPLY CLEANUP_ONLY RUN_VALIDATION IPTABLES_PROBE_PORT PROBE_TIMEOUT"
    " NETWORK_NAMESPACE CNI_MODE RECONCILE FORCE_APPLY"
)


class Entry:
    """``stay`` is the krun-discover that has found the mesh, and may still be there."""

    def __init__(self, env: Mapping[str, str], *, signals: Signals) -> None:
        self._env = env
        self._signals = signals
        self.stay: Stay | None = None

    def discover(self, *, timeout: float) -> dict[str, str]:
        """Return what krun-discover finds, within so many seconds; nothing where it is not installed.

        Raises:
            Failure: it failed, with its status; what it printed is malformed; it was not there in time.
            Interrupted: a signal that ends a process came first.
        """
        program = find_own(DISCOVER, path=self._path)
        if program is None:
            return {}
        # Late: without it there is nobody who could stay.
        from krun_launch.stay import Stay, caller

        reader, writer = os.pipe()
        identity = caller(is_tried=True)
        stay = self.stay = Stay(name=DISCOVER, identity=identity)
        number = stay.end.fileno()
        spec = helper(
            DISCOVER, argv=(program, "--stay", str(number)), env=environments.tool(self._env), identity=identity
        )
        try:
            pid = _started(spec.but(stdout=writer, inherited_fds=(number,)))
        except BaseException:
            os.close(reader)
            raise
        finally:
            os.close(writer)
        stay.started(pid)
        try:
            load_next(self._env)
            return envjson.read(reader, name=DISCOVER, timeout=timeout, signals=self._signals)
        except envjson.Nothing:
            raise _stopped(DISCOVER, status=self._ended(pid, patience=PATIENCE)) from None
        except BaseException:
            _end(pid)
            raise
        finally:
            os.close(reader)

    def intercept(self, env: Mapping[str, str], *, facts: Facts) -> dict[str, str]:
        """Have the rules applied that are wanted, and return what is to be known of that.

        Raises:
            Failure: krun-iptables failed, with its status; the settings are refused, and no rule was touched.
            Interrupted: a signal that ends a process came first.
        """
        # Whoever sets it has seen to the rules.
        if env.get("KRUN_INTERCEPTION") or not (program := find_own(IPTABLES, path=self._path)):
            return {}
        wanted = rules(env, facts=facts)
        if not wanted:
            return {}
        manners = MANNERS.split()
        told = {name: value for name, value in env.items() if name not in manners}
        pid = _started(helper(IPTABLES, argv=(program,), env=environments.tool({**told, **wanted})))
        status = self._ended(pid)
        if status not in OUTCOMES:
            raise _stopped(IPTABLES, status=status)
        return {"KRUN_INTERCEPTION": OUTCOMES[status]}

    @property
    def _path(self) -> str:
        return self._env.get("PATH") or os.defpath

    def _ended(self, pid: int, *, patience: float = math.inf) -> int:
        """Wait for the end of a step, or end it after so many seconds; return its status as a shell gives it."""
        until = time.monotonic() + patience
        poll = select.poll()
        poll.register(self._signals.fileno(), select.POLLIN)
        while (status := _status(pid)) is None:
            if (left := until - time.monotonic()) <= 0:
                return _end(pid)
            poll.poll(None if math.isinf(left) else left * 1000 + 1)
            for number in self._signals.read():
                if number not in HARMLESS:
                    _end(pid)
                    raise Interrupted(number)
        return status


def load_next(env: Mapping[str, str]) -> None:
    """Load what the next steps need, while krun-discover is waited for."""
    from krun_launch import facts, interception, mode, plan, settings  # noqa: F401

    if settings.names_control_plane(env):
        # What the agent takes comes when its token is waited for.
        from krun_launch import (  # noqa: F401
            borrowed,
            istio_plan,
            istio_whitebox,
            oneshot,
            ports,
            resolver,
            supervise,
        )


def rules(env: Mapping[str, str], *, facts: Facts) -> dict[str, str]:
    """What krun-iptables is to be told, by variable; nothing when there is nothing to intercept.

    Raises:
        Failure: the settings are refused.
    """
    # Late: an image may do without rules.
    from krun_launch import interception, mode

    chosen = mode.choose(env, facts=facts).mode
    if chosen == mode.NONE:
        return {}
    return interception.rules_wanted(env, facts=facts, has_agent=chosen == mode.ISTIO)


def _started(spec: ProcessSpec) -> int:
    try:
        return spawn(spec.but(may_borrow=True))
    except (NotFound, CannotRun) as error:
        # 126 and 127 speak of the application only.
        raise Misconfigured(error.message, hint=error.hint) from None


def _status(pid: int) -> int | None:
    found, status = os.waitpid(pid, os.WNOHANG)
    return status_of(status) if found else None


def _end(pid: int) -> int:
    """End a step that is still there, with all that it has started; wait for that, and return its status."""
    _signal(pid, signal.SIGTERM)
    until = time.monotonic() + PATIENCE
    while (status := _status(pid)) is None and time.monotonic() < until:
        # The wait is for the kernel: a millisecond or two.
        time.sleep(0.002)
    _signal(pid, signal.SIGKILL)
    return status_of(os.waitpid(pid, 0)[1]) if status is None else status


def _signal(group: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, number)


def _stopped(name: str, *, status: int) -> Failure:
    """A step's end is ours: its status, whatever it is."""

    class Stopped(Failure):
        exit_code: ClassVar[int] = status

    return Stopped(f"{name} ended with {status}", hint="its message is above; the application was not started")
