"""Network namespaces of a test's own, joined by a virtual cable, and the talkers and listeners in them.

Nothing in here touches the machine's own namespace: each is made by ``unshare --net`` of a process that we hold.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from krun_testbed import components, processes

TALKER = str(Path(__file__).with_name("talker.py"))


@dataclass(frozen=True, kw_only=True)
class Namespace:
    """A network namespace, by the process that keeps it."""

    pid: int

    def inside(self, argv: Sequence[str]) -> list[str]:
        """The command line that runs a command in it."""
        nsenter = components.program("nsenter", package="util-linux")
        user = [] if os.geteuid() == 0 else ["--user", "--preserve-credentials"]
        return [nsenter, "--target", str(self.pid), "--net", *user, "--", *argv]

    def run(
        self, *argv: str, env: Mapping[str, str] | None = None, stdin: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in it, to its end."""
        return processes.run(self.inside(argv), env=env, stdin=stdin)

    def must(self, *argv: str) -> str:
        """Run a command of the system in it that may not fail, and return its stdout."""
        done = self.run(*argv)
        if done.returncode != 0:
            raise AssertionError(f"{' '.join(argv)}: {done.returncode}: {done.stderr}")
        return done.stdout

    def call(self, address: str, port: int, *, uid: int = 0, gid: int = 0, source: str = "") -> str:
        """What a listener answers to a TCP client of this user: ``PORT ORIGINAL:PORT``, or why it does not."""
        done = self.run(sys.executable, "-I", "-S", TALKER, "call", address, str(port), str(uid), str(gid), source)
        return done.stdout.strip()

    @contextlib.contextmanager
    def listen(self, *places: str) -> Iterator[None]:
        """Listeners at ADDRESS:PORT, each of which tells a client where it arrived and where it wanted to go."""
        argv = self.inside([sys.executable, "-I", "-S", TALKER, "listen", *places])
        with processes.start(argv) as running:
            running.wait_for("^ready$")
            yield


@contextlib.contextmanager
def namespace(*, beside: Namespace | None = None) -> Iterator[Namespace]:
    """A new network namespace with its loopback up; as a user, in a user namespace whose root we are.

    ``beside`` is another one in whose user namespace it is made, so that a cable can lead there.
    """
    unshare = components.program("unshare", package="util-linux")
    own = [] if os.geteuid() == 0 or beside else ["--user", "--map-root-user"]
    argv = [unshare, *own, "--net", "sh", "-c", "ip link set lo up && echo up && exec cat"]
    keeper = subprocess.Popen(
        beside.inside(argv) if beside else argv,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=processes.environment(),
    )
    assert keeper.stdin is not None
    assert keeper.stdout is not None
    try:
        # nsenter and unshare become the command: the pid is that of the shell, then of cat.
        if keeper.stdout.readline() != b"up\n":
            raise AssertionError("no network namespace")
        yield Namespace(pid=keeper.pid)
    finally:
        keeper.stdin.close()
        keeper.wait(processes.WAIT)
        keeper.stdout.close()


def join(here: Namespace, there: Namespace, *, here_addresses: Sequence[str], there_addresses: Sequence[str]) -> None:
    """Lay a virtual cable from ``eth0`` to ``eth0``; addresses are given with their prefix, 10.1.0.1/24."""
    here.must("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", str(there.pid))
    for end, addresses in ((here, here_addresses), (there, there_addresses)):
        for address in addresses:
            end.must("ip", "address", "add", address, "dev", "eth0")
        end.must("ip", "link", "set", "eth0", "up")
