"""Which of several replicas writes: a Lease of Kubernetes, as client-go's leader election has it.

``decide`` says what to do with what was read; ``Election`` does it. The clocks of replicas need not agree: each counts
from when it has itself seen the lease change.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum, auto
from typing import Any

from hgate import errors
from hgate.kube import Kube
from hgate.kube_answer import Answer

PATH = "/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Seconds. Between what we believe (``renew``) and what others wait (``life``) lies a request that hangs."""

    life: float = 15.0  # others may take the lease so long after its last renewal
    renew: float = 10.0  # we hold it so long after our own
    retry: float = 2.0


class Step(Enum):
    """What to do with the lease."""

    CREATE = auto()
    TAKE = auto()  # it is free, or its holder has gone
    RENEW = auto()  # it is ours
    WAIT = auto()  # it is another's


def decide(lease: Mapping[str, Any] | None, *, me: str, unchanged: float) -> Step:
    """The step for a lease as it was read, which has not changed for ``unchanged`` seconds."""
    if lease is None:
        return Step.CREATE
    spec = lease.get("spec") or {}
    holder = spec.get("holderIdentity") or ""
    if holder == me:
        return Step.RENEW
    life = spec.get("leaseDurationSeconds")
    if not holder or unchanged >= (life if isinstance(life, int | float) else Timing.life):
        return Step.TAKE
    return Step.WAIT


def spec_of(lease: Mapping[str, Any] | None, *, step: Step, me: str, life: float, now: datetime) -> dict[str, Any]:
    """The lease's spec after a step."""
    old = dict((lease or {}).get("spec") or {})
    stamp = now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    is_ours = step is Step.RENEW
    return {
        **old,
        "holderIdentity": me,
        "leaseDurationSeconds": max(round(life), 1),
        "acquireTime": old.get("acquireTime", stamp) if is_ours else stamp,
        "renewTime": stamp,
        "leaseTransitions": int(old.get("leaseTransitions") or 0) + (step is Step.TAKE),
    }


class Election:
    """A thread's work. ``is_leader`` holds at any moment, in any thread; ``changed`` is called in this one."""

    def __init__(
        self,
        *,
        kube: Kube,
        namespace: str,
        name: str,
        me: str,
        changed: Callable[[bool], None],
        failed: Callable[[Answer | errors.Unreachable], object],
        worked: Callable[[], object] = lambda: None,
        timing: Timing | None = None,
    ) -> None:
        self._kube = kube
        self._collection = PATH.format(namespace=namespace)
        self._name = name
        self._me = me
        self._changed = changed
        self._failed = failed
        self._worked = worked
        self._timing = timing or Timing()
        self._held_until = 0.0  # monotonic
        self._seen: tuple[str, float] = ("", 0.0)  # the lease's version, and when it was first seen
        self._ours: dict[str, Any] | None = None  # as we have written it last
        self._was_leader = False
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lease", daemon=True)

    def is_leader(self) -> bool:
        """Whether the lease is ours now: time alone takes it away, without a word from the server."""
        return time.monotonic() < self._held_until

    def start(self) -> None:
        self._thread.start()

    def stop(self, *, patience: float = 5.0) -> None:
        """Give the lease back, so that another replica need not wait; for at most ``patience`` seconds."""
        self._stopped.set()
        self._thread.join(patience)

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                self._step()
                self._worked()
            except Answer as answer:
                if not answer.is_conflict:  # another was quicker: that is what a lease is for
                    self._failed(answer)
            except errors.Unreachable as error:
                self._failed(error)
            self._say()
            self._stopped.wait(self._timing.retry)
        self._release()

    def _step(self) -> None:
        started = time.monotonic()
        path = f"{self._collection}/{self._name}"
        # Nobody else writes a lease that is held: the holder need not look first, and hears of it by 409 if it was so.
        lease = self._ours if self.is_leader() and self._ours else self._kube.get(path)
        self._ours = None
        version = str(((lease or {}).get("metadata") or {}).get("resourceVersion", ""))
        if version != self._seen[0]:
            self._seen = (version, time.monotonic())
        step = decide(lease, me=self._me, unchanged=time.monotonic() - self._seen[1])
        if step is Step.WAIT:
            self._held_until = 0.0
            return
        spec = spec_of(lease, step=step, me=self._me, life=self._timing.life, now=datetime.now(tz=UTC))
        try:
            if lease is None:
                metadata: dict[str, Any] = {"name": self._name}
                made = self._kube.create(self._collection, {**_KIND, "metadata": metadata, "spec": spec})
            else:
                # With the version that was read: of two who take it at once, one gets 409.
                made = self._kube.replace(path, {**lease, **_KIND, "spec": spec})
        except Answer as answer:
            if answer.is_conflict:
                self._held_until = 0.0
            raise
        # From before the request: others count from when the server had it, which is later.
        self._held_until = started + self._timing.renew
        self._ours = made

    def _say(self) -> None:
        is_leader = self.is_leader()
        if is_leader != self._was_leader:
            self._was_leader = is_leader
            self._changed(is_leader)

    def _release(self) -> None:
        if not self.is_leader():
            return
        self._held_until = 0.0
        self._say()
        path = f"{self._collection}/{self._name}"
        try:
            lease = self._ours or self._kube.get(path)
            if lease and (lease.get("spec") or {}).get("holderIdentity") == self._me:
                spec = {**lease["spec"], "holderIdentity": "", "leaseDurationSeconds": 1}
                self._kube.replace(path, {**lease, **_KIND, "spec": spec})
        except (Answer, errors.Unreachable) as error:
            self._failed(error)  # it runs out by itself


_KIND = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease"}
