"""A process that is loaded already when the plan is made, and waits to be told to be the krun-token of the start.

To load that program then would take longer than all that it does. It is the krun-discover that we have started, which
stays when it has printed everything, or a krun-token that is started before it is known what it is to do. When it
cannot be had, krun-token is started as ever.
"""

from __future__ import annotations

import json
import os
import socket

from krun_launch import borrowed, environments, istio_paths, lines
from krun_launch.spawn import CannotRun, NotFound, find_own, helper, spawn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from krun_launch.identity import Identity
    from krun_launch.spawn import ProcessSpec

LIMIT = 5.0  # seconds; it has nothing else to do than to take what comes
KRUN_TOKEN = "krun-token"
WITHOUT_AGENT = ("static", "none", "proxyless")  # modes


class Stay:
    """``name`` is the program's, ``end`` its end of the socket; ``pid`` is told when it has been started.

    ``close`` sends it home.
    """

    def __init__(self, *, name: str, identity: Identity | None) -> None:
        self.name = name
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
        lines.debug("goes on as krun-token", part=self.name, pid=self.pid)
        return self.pid

    def close(self) -> None:
        """Without a command it ends."""
        self._channel.close()
        self.end.close()


def ahead(env: Mapping[str, str]) -> Stay | None:
    """In a mesh with a control plane: start a krun-token, that it may load while the environment is waited for.

    None when none will be needed, or it cannot be had so.
    """
    if env.get("KRUN_MODE") in WITHOUT_AGENT:
        return None
    program = find_own(KRUN_TOKEN, path=env.get("PATH") or os.defpath)
    if program is None or os.access(istio_paths.MOUNTED_TOKEN, os.R_OK):
        return None
    # In an interpreter of its own it would not be loaded any sooner; somebody else's program is not told to stay.
    if borrowed.program(program, env=env) is None:
        return None
    stay = Stay(name=KRUN_TOKEN, identity=caller(is_tried=False))
    number = stay.end.fileno()
    spec = helper(KRUN_TOKEN, argv=(program, "--stay", str(number)), env=environments.tool(env), identity=stay.identity)
    try:
        stay.started(spawn(spec.but(inherited_fds=(number,), may_borrow=True)))
    except (NotFound, CannotRun):
        stay.close()
        return None  # it is said when it is wanted
    lines.debug("loaded ahead", part=KRUN_TOKEN, pid=stay.pid)
    return stay


def caller(*, is_tried: bool) -> Identity | None:
    """As whom krun-token calls others, and krun-discover, which is going to be it; None: as we do.

    A try takes a process; without it whoever starts it has to see whether that can be.
    """
    # Late: whoever is not root needs none of it.
    if os.geteuid() != 0:
        return None
    from krun_launch import identity, trial

    reason = trial.cannot_switch([], folder="/") if is_tried else trial.missing_capabilities()
    return None if reason else identity.OURS
