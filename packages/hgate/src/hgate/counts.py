"""What a worker has done so far, in numbers."""

from __future__ import annotations

# Why a connection came to nothing, or to a bad end; there are no others, as each is a time series somewhere.
HELLO, CROWD, ROUTE, TOKEN, UNREACHABLE, STATUS, BROKEN, BUG = CAUSES = (
    "hello",
    "crowd",
    "route",
    "token",
    "unreachable",
    "status",
    "broken",
    "bug",
)


class Counts:
    """The numbers: attributes that grow while the worker runs, and ``open`` ones, which come and go."""

    def __init__(self) -> None:
        self.accepted = 0
        self.open_raw = 0
        self.open_tunnels = 0
        self.raw = 0
        self.tunnels = 0
        self.sent = 0  # bytes from clients to workloads
        self.received = 0
        self.errors = dict.fromkeys(CAUSES, 0)

    def values(self, *, sent: int = 0, received: int = 0, **others: float) -> dict[str, float]:
        """As the control process is told: errors by cause are ``error:CAUSE``. What is given is not counted yet."""
        return {
            "accepted": self.accepted,
            "open_raw": self.open_raw,
            "open_tunnels": self.open_tunnels,
            "raw": self.raw,
            "tunnels": self.tunnels,
            "sent_bytes": self.sent + sent,
            "received_bytes": self.received + received,
            **{f"error:{cause}": count for cause, count in self.errors.items()},
            **others,
        }
