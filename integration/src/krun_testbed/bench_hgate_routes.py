"""hgate's look-up among many routes: time for one, and memory for all of them.

In this process it is the table alone; beside that, worker processes with few routes and with many.
"""

from __future__ import annotations

import gc
import itertools
import time
import tracemalloc
from collections.abc import Iterator

import click

from hgate.routes import Identity, Route, RouteTable, read_sni
from krun_testbed import addresses, bench_hgate_systems, processes
from krun_testbed.load_systems import System, memory

FEW, MANY = 10, 10_000
NAMESPACES = 100
LOOKUPS = 100_000


def routes(count: int) -> Iterator[Route]:
    """As registrations make them: a place and an identity each."""
    for number in range(count):
        host = f"https://svc{number}-123456789.us-central1.run.app"
        yield Route(
            service=f"svc{number}",
            namespace=f"team{number % NAMESPACES}",
            url=f"{host}/_hbone/15003",
            identity=Identity(audience=host),
        )


def report() -> str:
    """Measure, and tell."""
    lines = [
        f"{'routes':>8} {'us a look-up':>13} {'with the name read':>22} {'s to set':>9} {'KiB':>8} {'bytes each':>11}"
    ]
    for count in (FEW, MANY):
        kept, seconds = sized(count)
        table = RouteTable(routes(count))
        lines.append(
            f"{count:>8} {find(table, count):>13.2f} {find(table, count, is_read=True):>22.2f} {seconds:>9.3f}"
            f" {kept / 1024:>8.0f} {kept / count:>11.0f}"
        )
    few, many = (resident(count) for count in (FEW, MANY))
    lines.append(f"gate with two workers: {few / 1024:.1f} MiB with {FEW}, {many / 1024:.1f} MiB with {MANY} routes")
    return "\n".join(lines)


def sized(count: int) -> tuple[int, float]:
    """Bytes that a table of so many routes holds, and seconds until it does."""
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    table = RouteTable(routes(count))
    gc.collect()
    kept = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert len(table) == count
    made = list(routes(count))
    started = time.perf_counter()
    RouteTable(made)
    return kept, time.perf_counter() - started


def find(table: RouteTable, count: int, *, is_read: bool = False) -> float:
    """Microseconds for one name, all of them in turn: with the name read each time, or known."""
    names = [f"outbound_.8080_._.svc{at}.team{at % NAMESPACES}.svc.cluster.local" for at in range(count)]
    known = [read_sni(name) for name in names]
    turns = itertools.islice(itertools.cycle(range(count)), LOOKUPS)
    started = time.perf_counter()
    if is_read:
        for at in turns:
            destination = read_sni(names[at])
            assert destination is not None
            assert table.find(destination) is not None
    else:
        for at in turns:
            destination = known[at]
            assert destination is not None
            assert table.find(destination) is not None
    return (time.perf_counter() - started) / LOOKUPS * 1e6


def resident(count: int) -> int:
    """KiB of a gate and its two workers with so many static routes."""
    address = addresses.loopback()
    argv = ["hgate", "--listen", f"{address}:{bench_hgate_systems.GATE}", "--workers", "2"]
    for route in routes(count):
        argv += ["--route", f"{route.service}.{route.namespace}={route.url}"]
    with processes.start(argv, env=processes.environment(KRUN_LOG_FORMAT="json")) as running:
        running.wait_for('"ready"', timeout=60)
        return memory(System(name="hgate", echo="", sink="", source="", running=[running]))


@click.command()
def main() -> None:
    """Measure look-ups."""
    click.echo(report())


if __name__ == "__main__":
    main()
