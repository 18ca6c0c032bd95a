"""Tunnels: hbone and hboned beside Envoys, OpenSSH and Go, in interleaved rounds, and each row with its target.

``python -m krun_testbed.bench_tunnel`` runs it alone; ``--system`` and ``--metric`` choose, and may be repeated:
``--system 'hbone h2c' --system 'envoy h2c' --metric down1``. Both ends, load and servers share the machine, so CPU
seconds for a GiB say more than bytes a second.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import click

from krun_testbed import (
    bench_tunnel_envoy,
    bench_tunnel_rows,
    bench_tunnel_ssh,
    bench_tunnel_start,
    bench_tunnel_systems,
    components,
    installed,
    load_rounds,
    load_systems,
    processes,
)
from krun_testbed.bench_tunnel_systems import SERVER, SYSTEMS, Place
from krun_testbed.components import Missing
from krun_testbed.load_systems import Values

START = "start"
BARE = bench_tunnel_rows.BARE
METRICS = (*load_systems.METRICS, START)
PEERS = ("envoy h2c", "envoy tls")
TLS = 8443
# Nothing in between is no tunnel, but tells what load and servers can do.
UNASKED = ("relays", "relays splice")

Start = Callable[[], Values]


def report(count: int, *, metrics: Sequence[str] = METRICS, systems: Sequence[str] = ()) -> str:
    """Measure ``count`` rounds, and tell: tables, then the rows with their targets."""
    wanted = list(systems) or [name for name in SYSTEMS if name not in UNASKED]
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        places = stack.enter_context(bench_tunnel_systems.place(folder))
        running, left_out = bench_tunnel_systems.start(stack, wanted, SYSTEMS, places=places)
        servers = places("servers").servers
        loads = [metric for metric in metrics if metric != START]
        taken = load_rounds.take(
            loads,
            list(running),
            lambda system, metric: load_systems.measure(running[system], metric, servers=servers),
            count=count,
        )
        if START in metrics:
            starts = stack.enter_context(starting(places("starts"), left_out=left_out))
            found = load_rounds.take([START], list(starts), lambda system, _: starts[system](), count=2 * count)
            taken.rounds.update(found.rounds)
            taken.said.update(found.said)
    parts = [load_rounds.table(taken, peers=PEERS), "", load_rounds.verdicts(bench_tunnel_rows.ROWS, taken)]
    return "\n".join([*parts, *left_out])


@contextlib.contextmanager
def starting(place: Place, *, left_out: list[str]) -> Iterator[dict[str, Start]]:
    """The clients whose start is timed, each with a server that speaks at once."""
    source, address = place.servers.source, place.servers.address
    with ExitStack() as stack:
        found: dict[str, Start] = {}
        tls = bench_tunnel_envoy.tls_server(address=place.address, port=TLS, target=(address, source), pair=place.pair)
        stack.enter_context(bench_tunnel_systems.envoy(place, "tls", tls))
        stack.enter_context(bench_tunnel_systems.envoy_server(place, is_tls=True))
        processes.wait_for_port(place.address, TLS)
        processes.wait_for_port(place.address, SERVER)
        hbone = stack.enter_context(installed.environment("hbone")).command("hbone")
        found.update(_secure(place, hbone=hbone, source=source))
        found["hbone h2c"] = stack.enter_context(_plain(place, hbone=hbone, source=source))
        try:
            sshd = stack.enter_context(bench_tunnel_ssh.server(address=place.address, folder=place.folder / "ssh"))
            command = bench_tunnel_ssh.proxy_command(sshd, f"{address}:{source}")
            found["ssh -W"] = bench_tunnel_start.first_byte(command)
        except Missing as missing:
            left_out.append(f"ssh -W: left out: {missing}")
        yield found


def _secure(place: Place, *, hbone: str, source: int) -> dict[str, Start]:
    """Clients with TLS: with the one root that they need, and with the system's as well, as users have them: a file of
    all, and a folder, in which this one root is."""
    roots = place.folder / "roots"
    roots.mkdir()
    (roots / "root.pem").write_bytes(place.root.read_bytes())
    openssl = components.program("openssl", package="openssl")
    processes.run([openssl, "rehash", str(roots)])
    argv = [openssl, "s_client", "-quiet", "-verify_return_error", "-connect", f"{place.address}:{TLS}"]
    ours = [hbone, bench_tunnel_systems.hbone_url(place, source, is_tls=True)]
    connect_to = f"{place.address}:{SERVER}"
    one = processes.environment(KRUN_CONNECT_TO=connect_to, KRUN_CA_FILE=str(place.root))
    many = processes.environment(KRUN_CONNECT_TO=connect_to, SSL_CERT_DIR=str(roots))
    first_byte = bench_tunnel_start.first_byte
    return {
        "openssl s_client": first_byte(argv, env=many),
        "openssl s_client, one root": first_byte([*argv, "-CAfile", str(place.root)]),
        BARE: first_byte([sys.executable, "-I", "-S", "-c", "print()"]),
        "hbone tls": first_byte(ours, env=many),
        "hbone tls, one root": first_byte(ours, env=one),
    }


@contextlib.contextmanager
def _plain(place: Place, *, hbone: str, source: int) -> Iterator[Start]:
    """hbone to a server without TLS, at another port."""
    port = SERVER + 1
    targets = [(place.servers.address, source)]
    config = bench_tunnel_envoy.server(address=place.address, port=port, targets=targets, pair=None)
    with bench_tunnel_systems.envoy(place, "plain", config):
        processes.wait_for_port(place.address, port)
        url = f"http://{place.address}:{port}/_hbone/{source}"
        yield bench_tunnel_start.first_byte([hbone, url])


@click.command()
@click.option("--rounds", "count", default=5, show_default=True, help="How often each system is measured.")
@click.option("--metric", "metrics", multiple=True, type=click.Choice(METRICS), help="Only this one (repeat).")
@click.option("--system", "systems", multiple=True, type=click.Choice(list(SYSTEMS)), help="Only this one (repeat).")
def main(count: int, metrics: tuple[str, ...], systems: tuple[str, ...]) -> None:
    """Measure tunnels, and print tables and the rows with their targets."""
    click.echo(report(count, metrics=metrics or METRICS, systems=systems))


if __name__ == "__main__":
    main()
