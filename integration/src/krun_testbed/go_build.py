"""The go command: run to its end, or building with its progress shown."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
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
