"""What the supervisor tells on its status port: gathered when somebody asks."""

from __future__ import annotations

import signal
import time
from collections.abc import Mapping

from krun_launch import lines
from krun_launch.status import Pages

TYPE_CHECKING = False
if TYPE_CHECKING:
    from krun_launch.metrics import State
    from krun_launch.supervise import Supervisor


def pages(supervisor: Supervisor) -> Pages:
    """The pages of a supervisor."""
    return Pages(state=lambda: _readyz(supervisor), metrics=lambda: _metrics(supervisor), end=lambda: _end(supervisor))


def _readyz(supervisor: Supervisor) -> Mapping[str, object]:
    # Late, as in the next one: the application starts sooner.
    from krun_launch import metrics

    return metrics.readyz(_state(supervisor), now=time.time())


def _metrics(supervisor: Supervisor) -> str:
    from krun_launch import metrics

    return metrics.text(_state(supervisor), now=time.time())


def _state(supervisor: Supervisor) -> State:
    from krun_launch.expiry import life
    from krun_launch.metrics import State

    plan = supervisor.plan
    return State(
        mode=plan.mode,
        interception=plan.interception,
        is_ready=supervisor.is_ready,
        step=supervisor.step,
        seconds=supervisor.seconds,
        restarts=supervisor.restarts,
        lives={credential.name: life(credential) for credential in plan.credentials},
        counts=supervisor.upkeep.counts,
    )


def _end(supervisor: Supervisor) -> None:
    """As SIGTERM does; in an end that is under way it would be a second one, and cut it short."""
    if not supervisor.is_ending:
        lines.info("asked to end", reason="POST /quitquitquit")
        supervisor.pending.append(signal.SIGTERM)
