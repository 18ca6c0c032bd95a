"""A krun-discover that stays when it has printed everything, to be the krun-token that the start waits for.

To load that program anew would take longer than all that it does. When it cannot be had, krun-token is started as ever.
"""

from __future__ import annotations

import json
import socket

from krun_launch import lines

TYPE_CHECKING = False
if TYPE_CHECKING:
    from krun_launch.identity import Identity
    from krun_launch.spawn import ProcessSpec

LIMIT = 5.0  # seconds; it has nothing else to do than to take what comes


class Stay:
    """``end`` is its end of the socket; ``pid`` is told when it has been started. ``close`` sends it home."""

    def __init__(self, *, identity: Identity | None) -> None:
        self.identity = identity
        self.pid = 0
        self._channel, self.end = socket.socketpair()

    def started(self, pid: int) -> None:
        """It has its end."""
        self.pid = pid
        self.end.close()

    def can_be(self, spec: ProcessSpec) -> bool:
        """Tell whether it is of the same kind, and the same user."""
        return spec.may_borrow and spec.identity == self.identity

    def take(self, spec: ProcessSpec) -> int | None:
        """Let it be this process, once; None when it cannot, and another has to be started."""
        if not self.can_be(spec) or self._channel.fileno() < 0:
            return None
        data = json.dumps({"argv": spec.argv, "env": dict(spec.env)}).encode()
        try:
            self._channel.settimeout(LIMIT)
            sent = socket.send_fds(self._channel, [data], [2 if spec.stderr is None else spec.stderr])
            self._channel.sendall(data[sent:])
        except OSError:
            return None  # it has not stayed
        finally:
            self.close()
        lines.debug("krun-discover goes on as krun-token", pid=self.pid)
        return self.pid

    def close(self) -> None:
        """Without a command it ends."""
        self._channel.close()
        self.end.close()
