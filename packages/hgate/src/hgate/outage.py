"""What is said of failures of the Kubernetes API: each once when it begins, and once when it is over."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from hgate import errors
from hgate.kube_access import HINT, Access
from hgate.kube_answer import Answer

log = logging.getLogger(__name__)

REMIND = 300.0  # seconds until an outage that lasts is said again
# An API server that has just started knows no roles yet, and refuses what it will permit in a moment: seconds after an
# outage for which a refusal must last until it is believed.
DOUBT = 10.0


class Outages:
    """By what was asked for. Many watches lose one server: that is one line, not one for each."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began = 0.0  # of the server being out of reach as a whole; 0 is not
        self._ended = -DOUBT  # when it answered again
        self._doubted: dict[str, float] = {}  # by what is refused since then, when first
        self._lost: set[str] = set()  # whose last word was that it is
        self._said: dict[str, float] = {}  # by reason, when it was said last
        self._refused: dict[str, str] = {}  # by who asked, what is refused
        self.failures: dict[str, int] = {"unreachable": 0, "denied": 0, "refused": 0}

    def failed(self, who: str, error: Answer | errors.Unreachable, *, access: Access | None = None) -> None:
        """``who`` names the watch, the lease, the writer: what failed there."""
        access = error.access if isinstance(error, Answer) else access
        if isinstance(error, Answer) and error.is_denied:
            self.failures["denied"] += 1
            self._deny(who, error)
        elif isinstance(error, Answer) and not error.is_passing:
            self.failures["refused"] += 1
            self._refused[who] = str(error)
            self._say("Kubernetes API refuses", str(error), access=access)
        else:
            self.failures["unreachable"] += 1
            if not self._began:
                self._began = self._clock()
                self._doubted.clear()
            self._lost.add(who)
            # The reasons differ by whom they reach in which moment; the outage is one.
            self._say("Kubernetes API out of reach", str(error), key="unreachable", access=access)

    def worked(self, who: str) -> None:
        """What failed before has succeeded."""
        if self._refused.pop(who, None):
            log.info("Kubernetes API permits it again", extra={"fields": {"resource": who}})
        self._lost.discard(who)
        if self._began and not self._lost:
            self._ended = self._clock()
            lasted = round((self._ended - self._began) * 1000)
            self._began = 0.0
            self._said.pop("unreachable", None)
            log.info("Kubernetes API answers again", extra={"fields": {"duration_ms": lasted}})

    @property
    def is_out_of_reach(self) -> bool:
        return bool(self._began)

    def _deny(self, who: str, error: Answer) -> None:
        access = error.access
        self._lost.discard(who)
        if self._is_doubtful(str(access)):
            return
        self._refused[who] = str(access)
        if self._is_said(str(access)):
            return
        # The server's own words name the user: whose binding is missing.
        fields = {"verb": access.verb, "resource": _resource(access), "reason": error.message, "hint": HINT}
        log.warning("not permitted", extra={"fields": fields})

    def _is_doubtful(self, access: str) -> bool:
        now = self._clock()
        if not self._began and now - self._ended >= DOUBT:
            return False
        return now - self._doubted.setdefault(access, now) < DOUBT

    def _say(self, message: str, reason: str, *, access: Access | None, key: str = "") -> None:
        if self._is_said(key or reason):
            return
        resource = _resource(access) if access else ""
        log.warning(message, extra={"fields": {"reason": reason, "resource": resource}})

    def _is_said(self, key: str) -> bool:
        now = self._clock()
        if now - self._said.get(key, -REMIND) < REMIND:
            return True
        self._said[key] = now
        return False


def _resource(access: Access) -> str:
    name = f"{access.resource}.{access.group}" if access.group else access.resource
    return f"{access.namespace}/{name}" if access.namespace else name
