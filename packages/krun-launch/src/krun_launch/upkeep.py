"""What is done beside everything else, in turns of the loop: tasks on time, certificates looked at, ports learnt."""

from __future__ import annotations

import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from krun_launch.certificates import Keeper
    from krun_launch.cluster_watch import ClusterWatch
    from krun_launch.expiry import Life
    from krun_launch.plan import Task
    from krun_launch.roots import Follower
    from krun_launch.supervise import Supervisor
    from krun_launch.tasks import Count, Schedule

REFRESH = 2.0  # seconds between looks at the certificates
FOR_EVER = 86400.0


class Upkeep:
    """``act`` does what is due, and tells when there is something to do again."""

    def __init__(self, supervisor: Supervisor, *, keeper: Keeper | None) -> None:
        self._supervisor = supervisor
        self._keeper = keeper
        self._look = time.monotonic()
        self._schedule: Schedule | None = None
        self._clusters: ClusterWatch | None = None
        self._roots: Follower | None = None

    @property
    def counts(self) -> list[Count]:
        """How often each task went well, and not."""
        return [] if self._schedule is None else self._schedule.counts

    def keep_credentials(self) -> None:
        """From now on: what tasks keep was made for the first time by a step of the start; so were roots."""
        supervisor = self._supervisor
        if self._schedule is not None or self._roots is not None:
            return
        if supervisor.plan.roots is not None:
            # Late, as below.
            from krun_launch.roots import Follower

            self._roots = Follower(supervisor.plan.roots)
        if not supervisor.plan.tasks:
            return
        # Late: only with a control plane there is something to renew.
        from krun_launch.tasks import Schedule

        self._schedule = Schedule(
            supervisor.plan.tasks, start=supervisor.run_beside, kill=supervisor.kill, life=self._life
        )

    def follow_clusters(self) -> None:
        """From now on: Envoy is there. Waits for the first look, but not long: who starts next may want all ports."""
        supervisor = self._supervisor
        if supervisor.plan.scopes is None or self._clusters is not None:
            return
        # Late: only a whitebox with a control plane has ports to learn.
        from krun_launch.cluster_watch import EVERY, ClusterWatch

        self._clusters = ClusterWatch(supervisor.plan.scopes, loop=supervisor.loop)
        until = time.monotonic() + EVERY
        while not self._clusters.has_looked and (left := until - time.monotonic()) > 0:
            supervisor.turn(left)

    def act(self) -> float:
        """Seconds until there is something to do again."""
        left = FOR_EVER
        if self._schedule is not None:
            left = min(left, self._schedule.act())
        if self._clusters is not None:
            left = min(left, self._clusters.act())
        if self._keeper is not None or self._roots is not None:
            left = min(left, self._look_at_files())
        return left

    def close(self) -> None:
        if self._clusters is not None:
            self._clusters.close()

    def _look_at_files(self) -> float:
        now = time.monotonic()
        if now >= self._look:
            self._look = now + REFRESH
            if self._keeper is not None and self._supervisor.is_ready:
                self._keeper.refresh()
            if self._roots is not None:
                self._roots.act()
        return self._look - now

    def _life(self, task: Task) -> Life | None:
        # Late: as above.
        from krun_launch.expiry import life

        for credential in self._supervisor.plan.credentials:
            if credential.name == task.renews:
                return life(credential)
        return None
