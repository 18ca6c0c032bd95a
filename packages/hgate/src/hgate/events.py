"""Events of Kubernetes that tell users what became of what they declared; by its name each is told once."""

from __future__ import annotations

import hashlib
import time
from datetime import UTC, datetime
from typing import Any

from hgate.declaration import MANAGER, Ref

REFUSED, KEPT, NOT_MUTUAL = "Refused", "Kept", "NotMutualTLS"
MAX_MESSAGE = 1024  # Kubernetes' own limit
AGAIN = 3000.0  # seconds: the server forgets events after an hour, and what is still wrong is told again


def event(ref: Ref, *, reason: str, message: str, now: float) -> dict[str, Any]:
    """A warning about an object; ``now`` in seconds since 1970."""
    period = int(now // AGAIN)
    mark = hashlib.sha256(f"{ref.uid}\n{reason}\n{message}\n{period}".encode()).hexdigest()[:16]
    at = datetime.fromtimestamp(now, tz=UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{ref.name[:200]}.{mark}", "namespace": ref.namespace},
        "involvedObject": {
            "apiVersion": ref.version,
            "kind": ref.kind,
            "namespace": ref.namespace,
            "name": ref.name,
            "uid": ref.uid,
        },
        "type": "Warning",
        "reason": reason,
        "message": message if len(message) <= MAX_MESSAGE else f"{message[: MAX_MESSAGE - 1]}…",
        "source": {"component": MANAGER},
        "firstTimestamp": at,
        "lastTimestamp": at,
        "count": 1,
    }


class Told:
    """What this process has told already, and when: an event costs a request, and most are known."""

    def __init__(self) -> None:
        self._names: dict[str, float] = {}

    def is_unknown(self, ref: Ref, reason: str, message: str) -> bool:
        """Tell whether this would be an event that was not sent yet."""
        return _name(event(ref, reason=reason, message=message, now=time.time())) not in self._names

    def is_new(self, made: dict[str, Any], *, now: float) -> bool:
        """Tell whether it is to be sent; it counts as sent then."""
        name = _name(made)
        if name in self._names:
            return False
        self._names = {name: at for name, at in self._names.items() if at > now - 2 * AGAIN}
        self._names[name] = now
        return True

    def forget(self, made: dict[str, Any]) -> None:
        """It was not sent after all."""
        self._names.pop(_name(made), None)


def _name(made: dict[str, Any]) -> str:
    return f"{made['metadata']['namespace']}/{made['metadata']['name']}"
