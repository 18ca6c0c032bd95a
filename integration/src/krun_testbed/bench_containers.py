"""How much later a container's application answers with krun in it, and how much larger its image is.

From ``docker run`` to the first answer, every round one container of each kind; the peer is the same application on the
same base without krun. ``python -m krun_testbed.bench_containers`` runs it alone.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import click

from krun_testbed import bench, components, containers, containers_mesh, docker_engine, images, processes
from krun_testbed.bench import System
from krun_testbed.containers_mesh import Mesh
from krun_testbed.docker_engine import Failed, docker

WITHOUT = "application without krun"
APP, TUNNEL = 8080, 15009


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where the containers of a benchmark are: a network of its own, and certificates."""

    network: str
    address: str
    folder: Path


@contextlib.contextmanager
def place() -> Iterator[Place]:
    """A network, and a folder of certificates, for a while."""
    network, subnet = f"krun-bench-{secrets.token_hex(3)}", containers_mesh.free_network()
    with tempfile.TemporaryDirectory(prefix="krun-bench-") as folder:
        containers_mesh.prepare(Path(folder))
        docker("network", "create", "--subnet", subnet, "--label", f"{containers.OWNER}={containers.owner()}", network)
        try:
            yield Place(network=network, address=subnet.replace(".0/24", ".77"), folder=Path(folder))
        finally:
            docker("network", "rm", network)


def answered(place: Place, image: str, *, port: int = APP, **variables: str) -> Callable[[], float]:
    """From ``docker run`` until the application answers a request, or the tunnel's port takes a connection."""
    env = Mesh(project="bench", folder=place.folder).environment("a", ADDRESS="0.0.0.0", **variables)
    # The gateway is not called here, so it need not be there.
    flags = [word for pair in {**env, "MESH": "static:127.0.0.1:15442"}.items() for word in ("--env", "=".join(pair))]
    flags += ["--label", f"{containers.OWNER}={containers.owner()}", "--volume", f"{place.folder / 'a'}:/certs:ro"]
    there = (
        (lambda: processes.listens(place.address, port))
        if port == TUNNEL
        else lambda: bench.answers(f"http://{place.address}:{port}/")
    )

    def measure() -> float:
        began = time.monotonic()
        where = ("--network", place.network, "--ip", place.address)
        identifier = docker("run", "--detach", *where, *flags, images.tag(image)).stdout.strip()
        try:
            processes.wait_until(there, what=f"{image} answers on {port}", poll=0.005)
            return time.monotonic() - began
        finally:
            docker("rm", "--force", identifier)

    return measure


def systems(place: Place) -> list[System]:
    """The application alone, and what krun makes of it in each kind of image."""
    return [
        System(name=WITHOUT, measure=answered(place, "tools")),
        System(name="golden image, mode none", measure=answered(place, "pipeline", XDS_ADDR="-", KRUN_MODE="none")),
        System(name="golden image, mode static", measure=answered(place, "pipeline")),
        System(name="the same, by krun", measure=answered(place, "entrypoint")),
        System(name="the same, krun as PID 1", measure=answered(place, "handmade")),
        System(name="mode static, until 15009 listens", measure=answered(place, "pipeline", port=TUNNEL)),
    ]


def sizes() -> str:
    """Each image's megabytes, and what it adds to its base and to Envoy's binary."""
    base, envoy = images.size(images.tag("base")), Path(components.envoy()).stat().st_size
    lines = [f"{'':<34} {'MB':>8} {'over base':>10} {'in Envoys':>10}   (Envoy's binary is {envoy / 1e6:.0f} MB)"]
    for name in ("base", "golden", "picked", "hgate", "tunnel"):
        more = images.size(images.tag(name)) - base
        lines.append(f"{name:<34} {(base + more) / 1e6:>8.1f} {more / 1e6:>10.1f} {more / envoy:>10.2f}")
    return "\n".join(lines)


def report(count: int) -> str:
    """The tables; or, on a machine without Docker, why there are none."""
    try:
        with docker_engine.used():
            images.make()
            with place() as here:
                taken = bench.rounds(systems(here), count=count)
            return f"{bench.table(taken, peer=WITHOUT)}\n\n{sizes()}"
    except components.Missing as missing:
        return f"left out: {missing}"


@click.command()
@click.option("--rounds", "count", default=11, show_default=True, help="Rounds of the table.")
def main(count: int) -> None:
    """Measure how late containers answer, and how large images are."""
    click.echo(f"{os.cpu_count()} cores, Python {sys.version.split()[0]}, {count} rounds after one thrown away\n")
    try:
        click.echo(report(count))
    except Failed as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    main()
