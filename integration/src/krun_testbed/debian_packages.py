"""Programs of Debian packages that need not be installed: unpacked in the cache folder, started from there.

For peers that benchmarks and a few tests compare with, some of which would start a daemon when they are installed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from krun_testbed import components, docker_engine
from krun_testbed.components import Missing

LIBRARIES = ("usr/lib/x86_64-linux-gnu", "usr/lib/aarch64-linux-gnu", "lib/x86_64-linux-gnu", "lib/aarch64-linux-gnu")


@dataclass(frozen=True, kw_only=True)
class Program:
    """A program, and what its environment must have."""

    path: str
    environment: Mapping[str, str]


def program(name: str, *, packages: Sequence[str]) -> Program:
    """The machine's own program, else that of the first of these Debian packages; the others are its libraries.

    Missing when there is neither.
    """
    try:
        return Program(path=components.program(name, package=packages[0]), environment={})
    except Missing:
        folder = unpacked(packages)
    for place in ("usr/sbin", "usr/bin"):
        if (folder / place / name).exists():
            found = [str(folder / part) for part in LIBRARIES if (folder / part).is_dir()]
            environment = {"LD_LIBRARY_PATH": ":".join(found)} if found else {}
            return Program(path=str(folder / place / name), environment=environment)
    raise Missing(f"{name}: not in the package {packages[0]}")


def unpacked(packages: Sequence[str]) -> Path:
    """Where these packages stand unpacked together. Missing when they cannot be had."""
    folder = docker_engine.cache() / f"unpacked-{'-'.join(packages)}"[:200]
    if not folder.exists():
        if shutil.which("apt-get") is None:
            raise Missing(f"{packages[0]}: not installed, and this is no Debian")
        click.echo(f"fetching the Debian packages {' '.join(packages)}", err=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix="unpacked-") as scratch:
            root = Path(scratch) / "root"
            _download(packages, folder=Path(scratch))
            for path in sorted(Path(scratch).glob("*.deb")):
                _run(["dpkg-deb", "--extract", str(path), str(root)], folder=Path(scratch))
            try:
                root.rename(folder)
            except OSError:
                if not folder.exists():  # else another worker was quicker
                    raise
    return folder


def _download(packages: Sequence[str], *, folder: Path) -> None:
    # As root apt would give the download away to a user that cannot write here.
    apt = ["apt-get", "-q", "-o", "APT::Sandbox::User=root"]
    try:
        _run([*apt, "download", *packages], folder=folder)
    except Missing:
        # The machine's lists of packages are old, or not there: newer ones, for this download alone.
        (folder / "lists" / "partial").mkdir(parents=True)
        apt += [
            "-o",
            f"Dir::State::Lists={folder / 'lists'}",
            "-o",
            "Dir::Cache::pkgcache=",
            "-o",
            "Dir::Cache::srcpkgcache=",
        ]
        _run([*apt, "update"], folder=folder)
        _run([*apt, "download", *packages], folder=folder)


def _run(argv: Sequence[str], *, folder: Path) -> None:
    done = subprocess.run(argv, cwd=folder, capture_output=True, text=True, check=False, env=dict(os.environ))
    if done.returncode != 0:
        said = done.stderr.strip()[-400:]
        raise Missing(f"{' '.join(argv[:2])}: {said} (hint: install the package)")
