"""The processes below us, at any depth: found in /proc, and killed when all is over."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections import defaultdict

from krun_launch.loop import reap

PATIENCE = 2.0  # seconds that a killed process may take to be gone; only one in the kernel's hands takes longer


def below(pid: int) -> list[int]:
    """The pids of all that descend from a process."""
    children: defaultdict[int, list[int]] = defaultdict(list)
    for entry in os.scandir("/proc"):
        if entry.name.isdecimal():
            with contextlib.suppress(OSError, ValueError, IndexError):
                # pid (comm) state ppid …; comm may hold anything, also brackets and spaces.
                with open(f"{entry.path}/stat", "rb") as file:  # noqa: PTH123 - no need of paths
                    after = file.read().rpartition(b")")[2].split()
                children[int(after[1])].append(int(entry.name))
    found: list[int] = []
    waiting = [pid]
    while waiting:
        next_ones = children.get(waiting.pop(), [])
        found += next_ones
        waiting += next_ones
    return found


def has_children() -> bool:
    """Tell whether any process is left below us: orphans come to us, so without a child there is nobody."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def sweep() -> int:
    """Kill all that is below us, until nothing is left or PATIENCE is over; return how many there were."""
    killed: set[int] = set()
    deadline = time.monotonic() + PATIENCE
    reap()
    while has_children() and time.monotonic() < deadline:
        for pid in below(os.getpid()):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
                killed.add(pid)
        # SIGCHLD interrupts nothing here, and the wait is for the kernel: a millisecond or two.
        time.sleep(0.002)
        reap()
    return len(killed)
