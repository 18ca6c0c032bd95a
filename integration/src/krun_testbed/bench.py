"""Start-up times as ratios against a peer: every round measures all systems in turn; medians over the rounds.

Absolute times are of this machine at this minute; the ratios are what can be compared.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import click

from krun_testbed import addresses, components, processes, tables
from krun_testbed.certificates import Authority, spiffe_id, write_workload

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl bench"
BARE = "python -I"
# An application that notes when it began, on the clock that all processes share, and then serves.
APPLICATION = (
    "import pathlib, socket, sys, time; pathlib.Path(sys.argv[1]).write_text(str(time.monotonic())); "
    "server = socket.create_server((sys.argv[2], 8080)); server.listen(); "
    "[server.accept()[0].close() for _ in iter(int, 1)]"
)


@dataclass(frozen=True, kw_only=True)
class System:
    """Something that is timed: ``measure`` returns seconds."""

    name: str
    measure: Callable[[], float]


def rounds(systems: list[System], *, count: int) -> dict[str, list[float]]:
    """Measure all systems in turn, ``count`` times after one round that is thrown away."""
    taken: dict[str, list[float]] = {system.name: [] for system in systems}
    with click.progressbar(range(count + 1), label="rounds", file=sys.stderr) as bar:
        for number in bar:
            for system in systems:
                seconds = system.measure()
                if number > 0:
                    taken[system.name].append(seconds)
    return taken


def table(taken: dict[str, list[float]], *, peer: str) -> str:
    """Median milliseconds, and the median of the per-round ratios and differences to the peer."""
    lines = [f"{'':<34} {'median ms':>10} {'min ms':>8} {'ratio':>7} {'more ms':>8}   (against {peer})"]
    for name, values in taken.items():
        ratio = statistics.median(a / b for a, b in zip(values, taken[peer], strict=True))
        more = statistics.median(a - b for a, b in zip(values, taken[peer], strict=True))
        middle, least = statistics.median(values) * 1e3, min(values) * 1e3
        lines.append(f"{name:<34} {middle:>10.1f} {least:>8.1f} {ratio:>7.2f} {more * 1e3:>8.1f}")
    return "\n".join(lines)


def to_end(argv: list[str], *, env: Mapping[str, str] | None = None, status: int = 0) -> Callable[[], float]:
    """From exec to the end of a command."""

    def measure() -> float:
        started = time.monotonic()
        done = processes.run(argv, env=processes.environment(**(env or {})), stdin=None)
        taken = time.monotonic() - started
        if done.returncode != status:
            raise click.ClickException(f"{argv}: status {done.returncode}: {done.stderr}")
        return taken

    return measure


def to_port(argv: list[str], *, port: int, variable: str, extra: dict[str, str]) -> Callable[[], float]:
    """From exec until a daemon takes a connection; ``{address}`` in argv is its loopback address."""

    def measure() -> float:
        address = addresses.loopback()
        env = processes.environment(**{variable: address}, **extra)
        started = time.monotonic()
        with processes.start([word.format(address=address) for word in argv], env=env):
            processes.wait_until(lambda: processes.listens(address, port), what=argv[0], poll=0.001)
            return time.monotonic() - started

    return measure


def commands() -> list[System]:
    """Each command's --version and its main path, beside the bare interpreter."""
    known = {
        "WORKLOAD_NAMESPACE": "demo",
        "WORKLOAD_NAME": "a",
        "PROJECT_ID": "p",
        "TRUST_DOMAIN": "p.svc.id.goog",
        "MESH": "static:127.0.0.1:15442",
    }
    found = [System(name=BARE, measure=to_end([sys.executable, "-I", "-c", "pass"]))]
    found += [System(name=f"{name} --version", measure=to_end([name, "--version"])) for name in tables.COMMANDS]
    routes = {"KRUN_ROUTES": "b.demo=https://b.example"}
    daemons = {
        "hboned, until it listens": (["hboned"], 15009, "KRUN_BIND", {"PORT": "15009"}),
        "hgate, until it listens": (["hgate", "--listen", "{address}:15442"], 15442, "KRUN_UNUSED", routes),
        "krun-sshd, until it listens": (["krun-sshd"], 15022, "KRUN_LOOPBACK", {"SSH_AUTH": KEY}),
    }
    found += [
        System(name="krun-discover, all set", measure=to_end(["krun-discover"], env=known)),
        System(
            name="krun-launch, none, -- true",
            measure=to_end(["krun-launch", "--no-env", "--", "true"], env={"XDS_ADDR": "-"}),
        ),
        System(name="krun-launch --dry-run", measure=to_end(["krun-launch", "--no-env", "--dry-run"], env=known)),
        System(name="hbone, until refused", measure=to_end(["hbone", "http://127.0.0.1:1/_hbone/22"], status=69)),
    ]
    found += [
        System(name=name, measure=to_port(argv, port=port, variable=variable, extra=extra))
        for name, (argv, port, variable, extra) in daemons.items()
    ]
    return found


@contextlib.contextmanager
def workload() -> Iterator[dict[str, str]]:
    """The environment of a workload in static mode, certificates filed, on an address of its own."""
    authority = Authority()
    identity = spiffe_id(trust_domain="p.svc.id.goog", namespace="demo", account="a")
    with tempfile.TemporaryDirectory() as folder:
        certificates = Path(folder) / "certificates"
        write_workload(directory=certificates, pair=authority.workload(spiffe_id=identity), root=authority.root)
        yield processes.environment(
            WORKLOAD_NAMESPACE="demo",
            WORKLOAD_NAME="a",
            PROJECT_ID="p",
            TRUST_DOMAIN="p.svc.id.goog",
            MESH="static:127.0.0.1:15442",
            KRUN_LOOPBACK=addresses.loopback(),
            KRUN_CERTS=str(certificates),
            KRUN_RUN_DIR=str(Path(folder) / "run"),
            KRUN_LOG_LEVEL="warning",
        )


def application(env: dict[str, str]) -> tuple[list[str], Path]:
    """The application's argv, and the file in which it notes when it began."""
    note = Path(env["KRUN_RUN_DIR"]).with_name("began")
    note.unlink(missing_ok=True)
    return [sys.executable, "-I", "-c", APPLICATION, str(note), env["KRUN_LOOPBACK"]], note


def launched(*, pipeline: bool) -> Callable[[], float]:
    """From exec of krun-launch (or of the whole pipeline) until the application begins."""

    def measure() -> float:
        with workload() as env:
            app, note = application(env)
            argv = ["krun-launch", "--no-env", "--", *app]
            if pipeline:
                argv = ["krun-launch", "--init", "--", "sh", "-c", 'krun-discover | krun-launch -- "$@"', "sh", *app]
            started = time.monotonic()
            with processes.start(argv, env=env):
                processes.wait_until(lambda: note.exists() and note.read_text() != "", what="application", poll=0.001)
                return float(note.read_text()) - started

    return measure


def by_hand() -> float:
    """The same Envoy and application without krun-launch: start Envoy, ask /ready until it is, start the app."""
    with workload() as env:
        app, note = application(env)
        # The files that krun-launch would write, made before the clock starts.
        plan = json.loads(
            processes.run(["krun-launch", "--no-env", "--dry-run", "--", *app], env=env, stdin=None).stdout
        )
        envoy = next(part for part in plan["processes"] if part["name"] == "envoy")
        prepare(plan, env=env)
        started = time.monotonic()
        with processes.start(envoy["argv"], env=env):
            ready = f"http://{env['KRUN_LOOPBACK']}:15000/ready"
            processes.wait_until(lambda: answers(ready), what="Envoy", poll=0.001)
            with processes.start(app, env=env):
                processes.wait_until(lambda: note.exists() and note.read_text() != "", what="application", poll=0.001)
                return float(note.read_text()) - started


def prepare(plan: dict[str, object], *, env: dict[str, str]) -> None:
    """Write a plan's files, and file the certificates where its Envoy looks for them."""
    run_dir = Path(env["KRUN_RUN_DIR"])
    run_dir.mkdir(mode=0o700)
    files = plan["files"]
    assert isinstance(files, dict)
    for name, content in files.items():
        (run_dir / name).write_text(json.dumps(content))
    live = run_dir / "certs" / "live"
    live.mkdir(parents=True)
    for path in Path(env["KRUN_CERTS"]).iterdir():
        (live / path.name).write_bytes(path.read_bytes())


def answers(url: str) -> bool:
    """Tell whether a URL answers 200."""
    try:
        with urllib.request.urlopen(url, timeout=1) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def imports() -> str:
    """How many modules each command loads for --version, beyond the bare interpreter's, and its dearest ones."""
    lines = [f"{'':<16} {'modules':>7}  dearest (self us)"]
    base = _imported(["-I", "-c", "pass"])
    for name in tables.COMMANDS:
        loaded = {
            module: cost
            for module, cost in _imported([components.command(name), "--version"]).items()
            if module not in base
        }
        dearest = sorted(loaded, key=lambda module: -loaded[module])[:4]
        lines.append(f"{name:<16} {len(loaded):>7}  {', '.join(f'{module} {loaded[module]}' for module in dearest)}")
    return "\n".join(lines)


def _imported(arguments: list[str]) -> dict[str, int]:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *arguments],
        capture_output=True,
        text=True,
        env=processes.environment(),
        check=True,
    )
    rows = [line.removeprefix("import time:").split("|") for line in done.stderr.splitlines() if "|" in line]
    return {row[2].strip(): int(row[0]) for row in rows if row[0].strip().isdecimal()}


@click.command()
@click.option("--rounds", "count", default=11, show_default=True, help="Rounds of each table.")
def main(count: int) -> None:
    """Measure start-up, and print ratios against a peer of the same rounds."""
    click.echo(f"{os.cpu_count()} cores, Python {sys.version.split()[0]}, {count} rounds after one thrown away\n")
    click.echo("Time until the application begins, Envoy ready before it:")
    systems = [
        System(name="Envoy and app by hand", measure=by_hand),
        System(name="krun-launch", measure=launched(pipeline=False)),
        System(name="krun-discover | krun-launch, init", measure=launched(pipeline=True)),
    ]
    click.echo(table(rounds(systems, count=count), peer=systems[0].name))
    click.echo("\nOwn time of each command:")
    click.echo(table(rounds(commands(), count=count), peer=BARE))
    click.echo("\nModules loaded by --version:")
    click.echo(imports())
    # Late: they take their tools from here.
    from krun_testbed import (
        bench_containers,
        bench_discover,
        bench_hgate,
        bench_hgate_registrations,
        bench_hgate_routes,
        bench_iptables,
        bench_mesh,
        bench_public,
        bench_tunnel,
    )

    click.echo(f"\nDiscovery in a real Kubernetes API:\n{bench_discover.report(count)}")

    click.echo(f"\nInterception rules, applied:\n{bench_iptables.report(count)}")
    click.echo(f"\nIn a mesh with a control plane, until the application begins:\n{bench_mesh.report(count)}")
    click.echo(f"\nPublic requests through hboned:\n{bench_public.report(min(count, 5))}")

    click.echo(f"\nTunnels:\n{bench_tunnel.report(min(count, 5))}")
    click.echo(f"\nhgate, what it leads on:\n{bench_hgate.report(min(count, 5))}")
    click.echo(f"\nhgate, looked up among its routes:\n{bench_hgate_routes.report()}")
    click.echo(f"\nhgate, registrations in a real Kubernetes API:\n{bench_hgate_registrations.report()}")
    click.echo(f"\nContainers, from docker run to the first answer:\n{bench_containers.report(count)}")


if __name__ == "__main__":
    main()
