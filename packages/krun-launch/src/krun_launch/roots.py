"""The mesh's roots, followed: what the control plane tells the agent becomes what the control plane is known by.

In a Pod the kubelet keeps that file fresh. Outside of Kubernetes it would stay as it was at the start, and a control
plane that signs with a new root would be a stranger, though it has told of that root while the old one still held.
"""

from __future__ import annotations

from krun_launch import lines, rundir
from krun_launch.expiry import BLOCK, LIMIT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path

    from krun_launch.plan import Roots


class Follower:
    """``act`` looks at the agent's file, and writes ours anew when that has changed."""

    def __init__(self, roots: Roots) -> None:
        self._roots = roots
        self._seen: tuple[int, ...] = ()
        self._follows: bool | None = None  # None: not known yet

    def act(self) -> None:
        """One stat call when nothing has changed."""
        if self._follows is False:
            return
        try:
            status = self._roots.learnt.stat()
        except OSError:
            return  # there is none yet
        seen = (status.st_mtime_ns, status.st_ino, status.st_size)
        if seen == self._seen:
            return
        self._seen = seen
        try:
            self._take(_blocks(self._roots.learnt))
        except OSError as error:
            fields = {"target": str(self._roots.file), "reason": error.strerror}
            lines.warning("the mesh's roots cannot be followed", **fields)

    def _take(self, learnt: frozenset[bytes]) -> None:
        ours = _blocks(self._roots.file)
        if self._follows is None:
            # Of another root than the mesh's, the control plane's own is told by nobody but whoever gave us that.
            self._follows = bool(ours) and ours <= learnt
        if not self._follows or not learnt or learnt == ours:
            return
        text = b"".join(sorted(learnt)).decode("ascii")
        rundir.replace(self._roots.file, text, owner=self._roots.owner)
        lines.info("the mesh's roots changed", count=len(learnt))


def _blocks(path: Path) -> frozenset[bytes]:
    """The certificates of a file, each in the same form."""
    with path.open("rb") as file:
        found = BLOCK.findall(file.read(LIMIT))
    return frozenset(_block(b"".join(body.split())) for body in found)


def _block(body: bytes) -> bytes:
    wrapped = b"\n".join(body[at : at + 64] for at in range(0, len(body), 64))
    return b"-----BEGIN CERTIFICATE-----\n" + wrapped + b"\n-----END CERTIFICATE-----\n"
