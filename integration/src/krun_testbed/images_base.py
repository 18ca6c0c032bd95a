"""The base image of the tests: a small Debian made here by mmdebstrap, since no image can be pulled everywhere.

Its tag is a digest of its recipe, so it is made once for each. Beside it stand, as files in the cache folder, the
packages of the testbed's own images (Redis), resolved against the same release: no docker build needs a network.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import click

from krun_testbed import components, docker_engine
from krun_testbed.docker_engine import Failed, docker

REPOSITORY = "krun-testbed/base"
SUITE = "bookworm"
PACKAGES = (
    "ca-certificates",  # roots for the TLS of hbone and hgate
    "iptables",  # krun-iptables, both kinds
    "python3",  # the tools, and the plain applications
)
EXTRA = ("redis-server",)  # as files only: what speaks first, and is no HTTP
# Nothing reads these in a container; licences stay.
LEFT_OUT = ("/usr/share/man/*", "/usr/share/locale/*", "/usr/share/doc/*")
KEPT = ("/usr/share/doc/*/copyright",)


def tag(suite: str = SUITE) -> str:
    """The image's name; it changes with the recipe."""
    recipe = json.dumps(_bootstrap(suite, archive=Path("base.tar"), debs=Path("debs"))[1:])
    return f"{REPOSITORY}:{suite}-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}"


def extra(suite: str = SUITE) -> Path:
    """The folder of the packages beside the image."""
    return docker_engine.cache() / f"debs-{tag(suite).rpartition(':')[2]}"


def make(suite: str = SUITE) -> str:
    """Make the base image unless it is there, and return its name."""
    name = tag(suite)
    with (docker_engine.cache() / "base.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if docker("image", "inspect", name, check=False).returncode == 0 and extra(suite).is_dir():
            return name
        click.echo(f"making {name} by mmdebstrap, about 45 s", err=True)
        with tempfile.TemporaryDirectory(prefix="krun-base-") as folder:
            archive, debs = Path(folder) / "base.tar", Path(folder) / "debs"
            debs.mkdir()
            _run([*_bootstrap(suite, archive=archive, debs=debs), *_sources(suite)])
            docker("import", "--change", 'CMD ["sh"]', str(archive), name, timeout=300)
            shutil.rmtree(extra(suite), ignore_errors=True)
            shutil.move(debs, extra(suite))
    return name


def _bootstrap(suite: str, *, archive: Path, debs: Path) -> list[str]:
    excluded = [f"--dpkgopt=path-exclude={pattern}" for pattern in LEFT_OUT]
    included = [f"--dpkgopt=path-include={pattern}" for pattern in KEPT]
    download = f'APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" apt-get --yes --download-only install {" ".join(EXTRA)}'
    return [
        components.program("mmdebstrap", package="mmdebstrap"),
        "--variant=minbase",
        f"--include={','.join(PACKAGES)}",
        "--aptopt=APT::Install-Recommends false",
        *excluded,
        *included,
        '--customize-hook=rm -f "$1"/var/cache/apt/archives/*.deb',  # the base's own
        f"--customize-hook={download}",
        f'--customize-hook=cp "$1"/var/cache/apt/archives/*.deb {debs}/',
        suite,
        str(archive),
    ]


def _sources(suite: str) -> list[str]:
    """Where this machine's own apt finds that release; nothing when it does not say, and mmdebstrap knows one."""
    for path in (Path("/etc/apt/sources.list.d/debian.sources"), Path("/etc/apt/sources.list")):
        if path.is_file() and suite in path.read_text(encoding="utf-8"):
            return [str(path)]
    return []


def _run(argv: Sequence[str]) -> None:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env=environment, timeout=900)
    if done.returncode != 0:
        said = "\n".join(done.stderr.splitlines()[-12:])
        raise Failed(f"{Path(argv[0]).name}: status {done.returncode}:\n{said}")


@click.command()
@click.option("--suite", default=SUITE, show_default=True, help="Debian's release.")
def main(suite: str) -> None:
    """Make the base image, unless it is there, and print its name."""
    try:
        click.echo(make(suite))
    except (components.Missing, Failed) as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    main()
