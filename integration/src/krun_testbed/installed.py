"""Our commands as users have them: in an environment of its own, out of wheels.

A tree that is installed to be edited has more folders in which packages are looked for.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from krun_testbed import tables
from krun_testbed.components import Missing

CONSTRAINTS = tables.ROOT / "constraints.txt"


@dataclass(frozen=True)
class Installed:
    """The environment's folder of programs."""

    folder: Path

    def command(self, name: str) -> str:
        """The path of one of our own commands."""
        return str(self.folder / name)


@contextlib.contextmanager
def environment(*packages: str) -> Iterator[Installed]:
    """An environment with these packages of ours. Missing, with the installer's words, when it cannot be made."""
    with tempfile.TemporaryDirectory(prefix="krun-installed-") as name:
        home = Path(name)
        home.chmod(0o755)  # other users are to run what is in it
        _uv("venv", "--quiet", "--python", sys.executable, "--allow-existing", name)
        projects = [str(tables.ROOT / "packages" / package) for package in packages]
        python = str(home / "bin" / "python")
        _uv("pip", "install", "--quiet", "--python", python, "--compile-bytecode", "-c", str(CONSTRAINTS), *projects)
        yield Installed(home / "bin")


def _uv(*arguments: str) -> None:
    program = Path(sys.executable).parent / "uv"
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Missing(f"uv {' '.join(arguments[:2])}: {done.stderr.strip()[-2000:]}")
