"""What the replica that holds the lease writes: the objects of registrations, and ``mesh-env``. Blocks."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hgate import errors, mesh_env, reconcile, resources
from hgate.events import Told
from hgate.kube import LeaderKube
from hgate.kube_answer import Answer, NotLeader
from hgate.mesh_env import Facts

if TYPE_CHECKING:
    from hgate.refusal import Refusal

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Job:
    """One round, as the cluster was known when it began."""

    wanted: list[dict[str, Any]]
    seen: Mapping[tuple[str, str, str], dict[str, Any]]
    refused: list[Refusal]
    kinds: frozenset[str]  # of which all of ours are seen: only these are written
    may_delete: bool
    known: frozenset[str]  # uids of the declaring objects that were judged
    has_cloud_run: bool
    mesh_env: dict[str, Any] | None
    facts: Facts | None  # None: mesh-env is not known, and stays as it is


class Writer:
    """``failed`` is told of each request that did not go through; ``write`` says whether all of them did."""

    def __init__(self, *, api: LeaderKube, system: str, failed: Callable[[Answer | errors.Unreachable], None]) -> None:
        self._api = api
        self._system = system
        self._failed = failed
        self._told = Told()
        self._foreign: tuple[str, ...] = ()
        self.writes: dict[str, int] = {"create": 0, "replace": 0, "delete": 0}

    def write(self, job: Job) -> bool:
        """One round; what it leaves undone is done by the next, of this replica or another."""
        try:
            is_done = self._register(job)
            return self._mesh_env(job) and is_done
        except NotLeader:
            return True  # whoever is it now does the rest
        except (Answer, errors.Unreachable) as error:
            self._failed(error)
            return False

    def _register(self, job: Job) -> bool:
        wanted = [item for item in job.wanted if item["kind"] in job.kinds]
        seen = {key: item for key, item in job.seen.items() if key[0] in job.kinds}
        done = reconcile.step(
            self._api,
            wanted=wanted,
            seen=seen,
            refused=job.refused,
            may_delete=job.may_delete,
            known=job.known,
            has_cloud_run=job.has_cloud_run,
            told=self._told,
        )
        for name, count in (("create", done.created), ("replace", done.replaced), ("delete", done.deleted)):
            self.writes[name] += count
        for _, answer in done.failed:
            self._failed(answer)
        return not done.failed

    def _mesh_env(self, job: Job) -> bool:
        if job.facts is None:
            return True
        change = mesh_env.change(job.mesh_env, job.facts, now=time.time())
        if change.foreign != self._foreign:
            self._foreign = change.foreign
            if change.foreign:
                reason = f"{', '.join(change.foreign)}: a person's, left as they are; empty them to have them kept up"
                log.info("mesh-env is not all ours", extra={"fields": {"reason": reason}})
        if not mesh_env.is_needed(job.mesh_env, change):
            return True
        body = mesh_env.merged(job.mesh_env, change, namespace=self._system)
        path = f"/api/v1/namespaces/{self._system}/configmaps"
        try:
            if job.mesh_env is None:
                self._api.create(path, body)
            else:
                # With the version that was read: a key that a person changes at this moment is not lost.
                self._api.replace(f"{path}/{resources.MESH_ENV}", body)
        except Answer as answer:
            if not answer.is_conflict:
                raise
            return False
        self.writes["create" if job.mesh_env is None else "replace"] += 1
        log.info("mesh-env written", extra={"fields": {"count": len(change.data)}})
        return True
