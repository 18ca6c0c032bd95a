"""hgate beside haproxy, nginx and Envoy, in interleaved rounds, and each row with its target.

Raw, where bytes are led on as they are by the server name alone, and through HTTP/2, beside an Envoy that does the
same. ``python -m krun_testbed.bench_hgate`` runs it alone; ``--system`` and ``--metric`` choose, and may be repeated.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import click

from krun_testbed import bench_hgate_rows, bench_hgate_slow, bench_tunnel_systems, load_rounds, load_systems
from krun_testbed.bench_hgate_systems import SYSTEMS
from krun_testbed.load_systems import Values

SLOW = "slow"  # beside two thousand half hellos
# Memory first: what a load has used is not given back, and hides what a connection takes.
METRICS = ("idle", "down1", "up1", "ping1", "conn16", SLOW)
GATES = ("haproxy", "nginx", "envoy", "hgate")  # the others have the same before them
PEERS = ("haproxy", "envoy h2c", "envoy tls")


def report(count: int, *, metrics: Sequence[str] = METRICS, systems: Sequence[str] = ()) -> str:
    """Measure ``count`` rounds, and tell: tables, then the rows with their targets."""
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        places = stack.enter_context(bench_tunnel_systems.place(Path(name)))
        running, left_out = bench_tunnel_systems.start(stack, systems or SYSTEMS, SYSTEMS, places=places)
        servers = places("servers").servers

        def measure(system: str, metric: str) -> Values:
            if metric == SLOW:
                return bench_hgate_slow.measure(running[system])
            return load_systems.measure(running[system], metric, servers=servers)

        loads = [metric for metric in metrics if metric != SLOW]
        taken = load_rounds.take(loads, list(running), measure, count=count)
        if SLOW in metrics:
            gates = [name for name in running if name in GATES]
            found = load_rounds.take([SLOW], gates, measure, count=min(count, 3))
            taken.rounds.update(found.rounds)
            taken.said.update(found.said)
    parts = [load_rounds.table(taken, peers=PEERS), "", load_rounds.verdicts(bench_hgate_rows.ROWS, taken)]
    return "\n".join([*parts, *left_out])


@click.command()
@click.option("--rounds", "count", default=5, show_default=True, help="How often each system is measured.")
@click.option("--metric", "metrics", multiple=True, type=click.Choice(METRICS), help="Only this one (repeat).")
@click.option("--system", "systems", multiple=True, type=click.Choice(list(SYSTEMS)), help="Only this one (repeat).")
def main(count: int, metrics: tuple[str, ...], systems: tuple[str, ...]) -> None:
    """Measure gates, and print tables and the rows with their targets."""
    click.echo(report(count, metrics=metrics or METRICS, systems=systems))


if __name__ == "__main__":
    main()
