"""The go command: run to its end, or building with its progress shown."""

from __future__ import annotations

import fcntl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import click

from krun_testbed import kubernetes_go
from krun_testbed.components import Missing

SAID_EVERY = 20.0  # seconds between two lines of progress where no terminal shows it in place


def run(*arguments: str, folder: Path, what: str) -> str:
    """What go prints, run in a folder. Missing when it fails; ``what`` is being built."""
    done = subprocess.run(
        [kubernetes_go.binary(), *arguments],
        cwd=folder,
        env=kubernetes_go.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise Missing(f"{what}: go {' '.join(arguments[:2])}: {_end_of(done.stderr)}")
    return done.stdout


def once(program: Path, *, what: str, module: Callable[[Path], object], options: Sequence[str] = ()) -> Path:
    """Build a program unless it is there, one caller at a time; return where it stands.

    ``module`` writes go.mod and the sources into a folder. Missing without Go, or when the build fails.
    """
    with (program.parent / f"{what}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not program.exists():
            click.echo(f"building {program.name} from its Go modules, some minutes", err=True)
            started = time.monotonic()
            with tempfile.TemporaryDirectory(prefix=f"krun-{what}-") as name:
                folder = Path(name)
                module(folder)
                run("mod", "tidy", folder=folder, what=what)
                scratch = folder / what
                build([*options, "-o", str(scratch)], ".", folder=folder, what=what)
                aside = program.with_name(f"{program.name}.new")
                aside.write_bytes(scratch.read_bytes())
                aside.chmod(0o755)
                aside.rename(program)
            click.echo(f"{program.name}: built in {time.monotonic() - started:.0f} s", err=True)
    return program


def build(options: Sequence[str], *packages: str, folder: Path, what: str) -> None:
    """Run go build, which names each package when it begins with it: that is the progress. Missing when it fails."""
    total = len(run("list", "-deps", *packages, folder=folder, what=what).splitlines())
    said: list[str] = []
    shown = time.monotonic()
    argv = [kubernetes_go.binary(), "build", "-v", "-trimpath", *options, *packages]
    with subprocess.Popen(
        argv, cwd=folder, env=kubernetes_go.environment(), stderr=subprocess.PIPE, text=True
    ) as process:
        for number, line in enumerate(process.stderr or (), 1):
            said.append(line)
            text = f"{what}: {number} of {total} packages"
            if sys.stderr.isatty():
                click.echo(f"\r{text}", nl=False, err=True)
            elif time.monotonic() - shown > SAID_EVERY:
                shown = time.monotonic()
                click.echo(text, err=True)
    if sys.stderr.isatty():
        click.echo(err=True)
    if process.returncode != 0:
        raise Missing(f"{what}: go build: {_end_of(''.join(said))}")


def _end_of(text: str) -> str:
    return "\n".join(text.strip().splitlines()[-8:])
