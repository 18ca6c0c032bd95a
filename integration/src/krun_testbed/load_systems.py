"""What load is put on, and what one load says of it: throughput, latency, connections, CPU and memory.

A system is some processes between the load and its servers, with an address for each of the servers. CPU and memory
are those of its processes and of all below them; the load's own count for nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from krun_testbed import load_generator, processes
from krun_testbed.load_generator import Servers
from krun_testbed.processes import Running

Values = dict[str, float]

GIB = 2**30
SECONDS = 0.8  # of each load
PINGS = 2000
PINGS_UNDER_LOAD = 300
IDLE = 1000  # connections
TICKS = os.sysconf("SC_CLK_TCK")
# Memory first, and once: what a load has used is not given back, and hides what a connection takes.
METRICS = ("idle", "down1", "up1", "down16", "up16", "ping1", "ping1k", "pingload", "conn16")
ONCE = ("idle",)


@dataclass(frozen=True, kw_only=True)
class System:
    """Something between the load and its servers."""

    name: str
    echo: str  # HOST:PORT that leads to the echo
    sink: str
    source: str
    running: Sequence[Running] = ()
    hellos: dict[str, Path] = field(default_factory=dict)  # what a connection says first, by server

    def more(self, server: str) -> tuple[str, ...]:
        """The last arguments of a load to this server."""
        path = self.hellos.get(server)
        return (str(path),) if path else ()


def measure(system: System, metric: str, *, servers: Servers) -> Values:
    """One load. Failed of the load generator when it does not come through."""
    if metric.startswith(("down", "up")):
        return bulk(system, metric.rstrip("0123456789"), streams=metric.lstrip("downup"), servers=servers)
    if metric == "pingload":
        return ping_under_load(system, servers=servers)
    if metric.startswith("ping"):
        size = 1024 if metric.endswith("k") else 1
        return load_generator.run("ping", system.echo, str(size), str(PINGS), *system.more("echo"))
    if metric.startswith("conn"):
        return connects(system, at_once=metric.removeprefix("conn"))
    return idle(system)


def bulk(system: System, direction: str, *, streams: str, servers: Servers) -> Values:
    server = "source" if direction == "down" else "sink"
    target = system.source if direction == "down" else system.sink
    before = cpu(system)
    arguments = (target, direction, streams, str(SECONDS), str(servers.counter))
    found = load_generator.run("bulk", *arguments, *system.more(server))
    if not found["bytes"]:
        raise load_generator.Failed(f"{system.name}: no byte came through")
    # The load's own half second of warm-up has cost CPU, too.
    share = found["seconds"] / (found["seconds"] + 0.5)
    rate = found["bytes"] / found["seconds"]
    return {"MB/s": rate / 1e6, "CPU s/GiB": (cpu(system) - before) * share / (found["bytes"] / GIB)}


def ping_under_load(system: System, *, servers: Servers) -> Values:
    """One byte to and fro, while another connection moves bytes down."""
    with load_generator.bulk(system.source, "down", counter=servers.counter, more=system.more("source")):
        load_generator.run("ping", system.echo, "1", "50", *system.more("echo"))  # until the other one is at speed
        return load_generator.run("ping", system.echo, "1", str(PINGS_UNDER_LOAD), *system.more("echo"))


def connects(system: System, *, at_once: str) -> Values:
    before = cpu(system)
    found = load_generator.run("connects", system.echo, at_once, str(SECONDS), *system.more("echo"))
    if found["failed"]:
        raise load_generator.Failed(f"{system.name}: {found['failed']:.0f} connections failed")
    spent = cpu(system) - before
    return {"conn/s": found["per_second"], "CPU ms": spent * 1000 / found["done"], "p50": found["p50"]}


def idle(system: System, *, count: int = IDLE) -> Values:
    """Memory of a connection that is open and does nothing, and of the processes when none is."""
    before = memory(system)
    with load_generator.idle(system.echo, count, *system.more("echo")):
        after = memory(system)
    return {"KiB each": (after - before) / count, "MiB none open": before / 1024}


def cpu(system: System) -> float:
    """Seconds of CPU that its processes have used so far."""
    spent = 0
    for pid in _with_below(system.running):
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        spent += int(words[11]) + int(words[12])
    return spent / TICKS


def memory(system: System) -> int:
    """KiB that its processes hold, what is shared with others divided by their number."""
    total = 0
    for pid in _with_below(system.running):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1])
    return total


def _with_below(running: Sequence[Running]) -> list[int]:
    return [pid for one in running for pid in (one.pid, *processes.children(one.pid))]


@contextmanager
def direct(servers: Servers) -> Iterator[System]:
    """Nothing in between: what load and servers are able to do."""
    echo, sink, source = (f"{servers.address}:{port}" for port in servers.ports)
    yield System(name="direct", echo=echo, sink=sink, source=source)
