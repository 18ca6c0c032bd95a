"""The cluster's side of the control process: watches it, says what is routed, and writes when it holds the lease.

Every replica does the first two; the lease decides about the third.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hgate import cloud_run, errors, listing, mesh_env, place, ranges, resources
from hgate.bugs import place_of
from hgate.cluster import Cluster
from hgate.kube import Kube, LeaderKube
from hgate.lease import Election
from hgate.metadata import Metadata
from hgate.outage import Outages
from hgate.registration import Registry, Result
from hgate.threads import in_thread
from hgate.token_source import Credentials
from hgate.writer import Job, Writer

if TYPE_CHECKING:
    from hgate.lease import Timing as LeaseTiming
    from hgate.watch import Timing as WatchTiming

log = logging.getLogger(__name__)

GATHER = 0.05  # seconds: changes come in groups
CALM = 60.0  # seconds until all is looked at again, though nothing has changed
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0  # until a round that failed is repeated
RANGES_EVERY = 600.0
LISTED_EVERY = 60.0


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How it is told. ``me`` names this replica in the lease."""

    me: str
    system: str = resources.SYSTEM
    gate_address: str = ""  # instead of that of the service internal-hgate
    watch_timing: WatchTiming | None = None
    lease_timing: LeaseTiming | None = None


class Registrar:
    """``routed`` is called with what follows from the cluster, each time it is other than before."""

    def __init__(
        self,
        *,
        kube: Kube,
        metadata: Metadata | None,
        credentials: Credentials | None,
        settings: Settings,
        routed: Callable[[Result], None],
    ) -> None:
        self._kube = kube
        self._metadata = metadata
        self._credentials = credentials
        self._settings = settings
        self._routed = routed
        self._loop = asyncio.get_running_loop()
        self.outages = Outages()
        self._registry = Registry()
        self._result: Result | None = None
        self._place = place.Place()
        self._ranges: tuple[str, ...] = ()
        self._changed, self._to_write, self.settled = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._relist = asyncio.Event()
        self.cluster = Cluster(
            kube=kube,
            system=settings.system,
            registry=self._registry,
            outages=self.outages,
            changed=self._changed.set,
            disturbed=self._to_write.set,
            timing=settings.watch_timing,
        )
        self._election = Election(
            kube=kube,
            namespace=settings.system,
            name=resources.OURS,
            me=settings.me,
            changed=self._elected,
            failed=lambda error: self._soon(self.outages.failed, "lease", error),
            worked=lambda: self._soon(self.outages.worked, "lease"),
            timing=settings.lease_timing,
        )
        api = LeaderKube(kube, is_leader=self._election.is_leader, learned=self.cluster.learn)
        self.writer = Writer(
            api=api,
            system=settings.system,
            failed=lambda error: self._soon(self.outages.failed, "writing", error),
        )

    @property
    def is_settled(self) -> bool:
        """Whether the declarations were read once: the routes are those of the cluster."""
        return self.settled.is_set()

    @property
    def is_leader(self) -> bool:
        return self._election.is_leader()

    @property
    def result(self) -> Result | None:
        return self._result

    async def run(self) -> None:
        """Watch and write until cancelled."""
        self._place = await in_thread(lambda: place.find(self._metadata), name="place")
        self._registry.project(self._place.project_number)
        self.cluster.start()
        self._election.start()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._route())
            group.create_task(self._write())
            group.create_task(self._look_at_ranges())
            group.create_task(self._list_services())

    async def stop(self) -> None:
        """Give the lease up; watch no more."""
        self.cluster.stop()
        await in_thread(self._election.stop, name="lease")

    async def _route(self) -> None:
        listed = self._registry.listed
        while True:
            await self._changed.wait()
            await asyncio.sleep(GATHER)
            self._changed.clear()
            if not self.cluster.is_settled:
                continue
            self._registry.gate((self._gate_address(), mesh_env.address(self.cluster.service(resources.PUBLIC))))
            self._registry.trust_domain(self._trust_domain() or self._usual_trust_domain())
            if self._registry.listed != listed:
                # Other projects: what was known of the old ones says nothing of them.
                listed = self._registry.listed
                self._relist.set()
            self._follow()

    def _follow(self) -> None:
        """What is declared has changed."""
        try:
            result = self._registry.result()
        except Exception as error:  # noqa: BLE001 - somebody has declared what we cannot take: others keep what they have
            log.error("a bug in registration: routes stay as they are", extra={"fields": {"reason": place_of(error)}})
            return
        before, self._result = self._result, result
        if before is None or before.policy_error != result.policy_error:
            self._say_policy(result.policy_error)
        if result is not before:  # the same one, when nothing that matters has changed
            self._routed(result)
        self.settled.set()
        self._to_write.set()

    async def _write(self) -> None:
        pause = 0.0
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CALM):
                    await self._to_write.wait()
            self._to_write.clear()
            job = self._job()
            if job is None or not self._election.is_leader():
                # Whoever writes now has its own failures.
                self.outages.worked("writing")
                continue
            if await self._is_written(job):
                pause = 0.0
                self.outages.worked("writing")
            else:
                pause = min(max(pause * 2, FIRST_PAUSE), LONGEST_PAUSE)
                self._loop.call_later(pause, self._to_write.set)

    async def _is_written(self, job: Job) -> bool:
        try:
            return await in_thread(lambda: self.writer.write(job), name="writer")
        except Exception as error:  # noqa: BLE001 - the gate goes on
            log.error("a bug in writing: it is tried again", extra={"fields": {"reason": place_of(error)}})
            return False

    def _job(self) -> Job | None:
        if self._result is None:
            return None
        return Job(
            wanted=list(self._result.wanted),
            seen=self.cluster.seen(),
            refused=[*self._result.refused, *self._result.hindered],
            kinds=self.cluster.kinds,
            may_delete=self.cluster.is_whole and self._result.is_settled,
            known=self._result.known,
            has_cloud_run=self._result.has_cloud_run,
            mesh_env=self.cluster.config_map(resources.MESH_ENV),
            facts=self._facts() if self.cluster.is_known(resources.MESH_ENV) else None,
        )

    def _facts(self) -> mesh_env.Facts:
        where = self._place
        return mesh_env.Facts(
            public=mesh_env.address(self.cluster.service(resources.PUBLIC)),
            internal=self._gate_address(),
            roots=mesh_env.mesh_roots(self.cluster.config_map(resources.ROOTS)),
            tenant=mesh_env.tenant(self.cluster.config_map(resources.TENANT)),
            network=where.network,
            ranges=self._ranges,
            trust_domain=self._trust_domain(),
            project_id=where.project_id,
            project_number=where.project_number,
            cluster=where.cluster,
            location=where.location,
        )

    def _gate_address(self) -> str:
        return self._settings.gate_address or mesh_env.address(self.cluster.service(resources.INTERNAL))

    def _trust_domain(self) -> str:
        """As the environment or the mesh says it; a mesh whose config names none has Istio's own."""
        if self._place.trust_domain:
            return self._place.trust_domain
        mesh = self.cluster.config_map(resources.MESH)
        return "" if mesh is None else mesh_env.trust_domain(mesh) or "cluster.local"

    def _usual_trust_domain(self) -> str:
        return f"{self._place.project_id}.svc.id.goog" if self._place.project_id else "cluster.local"

    def _elected(self, is_leader: bool) -> None:
        message = "holds the lease" if is_leader else "holds the lease no more"
        log.info(message, extra={"fields": {"replica": self._settings.me}})
        self._soon(self._to_write.set)

    def _say_policy(self, error: str) -> None:
        if error:
            fields = {"resource": f"{self._settings.system}/configmaps/{resources.POLICY}", "reason": error}
            log.error("policy cannot be read: the last good one holds", extra={"fields": fields})

    async def _look_at_ranges(self) -> None:
        """Nodes come and go, so from time to time; only who writes asks."""
        while True:
            if self._election.is_leader():
                found = await in_thread(self._ask_ranges, name="ranges")
                if found is not None:
                    self.outages.worked("ranges")
                if found and found != self._ranges:
                    self._ranges = found
                    self._to_write.set()
            await asyncio.sleep(RANGES_EVERY if self._ranges else CALM / 10)

    def _ask_ranges(self) -> tuple[str, ...] | None:
        return ranges.ranges(self._kube, failed=lambda error: self._soon(self.outages.failed, "ranges", error))

    async def _list_services(self) -> None:
        """Cloud Run's own list, of the projects and regions that the admins name."""
        failed = ""
        while True:
            wanted = self._registry.listed
            if wanted and self._credentials:
                try:
                    found = await self._ask_services(self._credentials, wanted)
                except (errors.Failure, cloud_run.Unreadable) as error:
                    # What was listed before stays: a list that failed says nothing of what there is.
                    if str(error) != failed:
                        failed = str(error)
                        log.warning("Cloud Run's services cannot be listed", extra={"fields": {"reason": failed}})
                else:
                    failed = ""
                    self._registry.cloud_run(found)
                    self._changed.set()
            elif not wanted:
                self._registry.cloud_run([])
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LISTED_EVERY):
                    await self._relist.wait()
            self._relist.clear()

    async def _ask_services(self, credentials: Credentials, wanted: tuple[Any, ...]) -> list[cloud_run.Service]:
        return await in_thread(lambda: listing.services(credentials, wanted), name="cloud-run")

    def _soon(self, call: Callable[..., object], *values: object) -> None:
        """From any thread, in the loop."""
        try:
            self._loop.call_soon_threadsafe(call, *values)
        except RuntimeError:
            return


def replica() -> str:
    """A name for this process that no other has, nor had: the pod's, and something of its own."""
    return f"{socket.gethostname()}_{secrets.token_hex(4)}"
