"""Two thousand clients that say half a hello and stay: what they cost a gate, and what they do to others."""

from __future__ import annotations

import contextlib
import socket
import time
from pathlib import Path

from krun_testbed import load_generator
from krun_testbed.load_systems import System, Values, cpu, memory

SLOW = 2000
REST = 1.0  # seconds that nobody says anything
SECONDS = "0.5"


def measure(system: System) -> Values:
    """Connections one after the other, without them and beside them; CPU and memory while they stay."""
    free = _connected(system)
    before = memory(system)
    with contextlib.ExitStack() as stack:
        host, _, port = system.echo.rpartition(":")
        half = Path(system.hellos["echo"]).read_bytes()[:700]
        for _ in range(SLOW):
            connected = stack.enter_context(socket.create_connection((host, int(port))))
            connected.sendall(half)
        beside = _connected(system)
        started, used = time.monotonic(), cpu(system)
        time.sleep(REST)
        at_rest = (cpu(system) - used) / (time.monotonic() - started)
        return {
            "p50 free": free,
            "p50 beside": beside,
            "ratio": beside / free,
            "CPU % at rest": at_rest * 100,
            "KiB each": (memory(system) - before) / SLOW,
        }


def _connected(system: System) -> float:
    """Microseconds of a connection that opens, has one byte echoed, and closes."""
    return load_generator.run("connects", system.echo, "1", SECONDS, *system.more("echo"))["p50"]
