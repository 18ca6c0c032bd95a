"""Istio's own programs, built here from its Go module, once: there is no package of them to install.

``python -m krun_testbed.istio_build`` builds pilot-agent unless it is there, and prints its path; with ``--all``, of
every version that tests know. One takes some two minutes on two cores, and stands in the cache folder, outside of any
checkout. A build that was cut off goes on where it was, by Go's own cache.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import click

from krun_testbed import docker_engine, go_build
from krun_testbed.components import Missing

MODULE = "istio.io/istio"
# Istio's tags are no versions to Go; these are commits after 1.31.0-rc.0 and after 1.30.0-alpha.1.
NEWEST = "v0.0.0-20260827124520-eed52ebb66ad"
OLDER = "v0.0.0-20260423205519-b01690e6db7d"
VERSIONS = (NEWEST, OLDER)
VERSION = re.compile(r"v\d+\.\d+\.\d+-[0-9a-z.-]+")
NAMED = {"newest": NEWEST, "older": OLDER}
AGENT = "pilot-agent"
CONTROL_PLANE = "pilot-discovery"
PACKAGES = {AGENT: "./pilot/cmd/pilot-agent", CONTROL_PLANE: "./pilot/cmd/pilot-discovery"}
# What of the source its programs need where they run.
DEFINITIONS = "manifests/charts/base/files/crd-all.gen.yaml"
TEMPLATE = "tools/packaging/common/envoy_bootstrap.json"
FILES = (DEFINITIONS, TEMPLATE)


def chosen() -> tuple[str, ...]:
    """What ``ISTIO`` asks for, a word of NAMED or a version; without it the newest, and for the long forms all.

    Missing when it is neither.
    """
    word = os.environ.get("ISTIO", "")
    if word and word not in NAMED and not VERSION.fullmatch(word):
        raise Missing(f"ISTIO={word}: neither {' nor '.join(NAMED)} nor a version of Go's, as {NEWEST}")
    return (word,) if word else tuple(NAMED) if os.environ.get("KRUN_SOAK") else ("newest",)


def version_of(word: str) -> str:
    """The version that a word of NAMED stands for, or the version itself."""
    return NAMED.get(word, word)


def binary(program: str = AGENT, *, version: str = NEWEST) -> Path:
    """Where a program stands once it is built."""
    return docker_engine.cache() / f"{program}-{version}"


def make(*programs: str, version: str = NEWEST) -> tuple[Path, ...]:
    """Build what is not there of these programs, in one go build. Missing when this machine has no Go, or it fails."""
    paths = tuple(binary(program, version=version) for program in programs)
    if all(path.exists() for path in paths):
        return paths  # while another version is built
    with (docker_engine.cache() / "istio.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        wanted = [program for program in programs if not binary(program, version=version).exists()]
        if wanted:
            click.echo(f"building {' and '.join(wanted)} {version} from Istio's module, some minutes", err=True)
            started = time.monotonic()
            with tempfile.TemporaryDirectory(dir=docker_engine.cache(), prefix="istio-") as folder:
                _build(wanted, Path(folder), version=version)
            click.echo(f"{' and '.join(wanted)}: built in {time.monotonic() - started:.0f} s", err=True)
    return paths


def file(name: str, *, version: str = NEWEST) -> Path:
    """One of FILES, kept beside the programs."""
    kept = docker_engine.cache() / f"{Path(name).stem}-{version}{Path(name).suffix}"
    if not kept.exists():
        scratch = kept.with_name(f".{kept.name}.{os.getpid()}")
        # Not by copy2: Go's folder is read-only, and this file is to be removed some day.
        shutil.copyfile(source(version=version) / name, scratch)
        scratch.rename(kept)
    return kept


def source(*, version: str = NEWEST) -> Path:
    """Istio's source, where Go keeps it: read only, and downloaded unless it is there."""
    with tempfile.TemporaryDirectory() as folder:
        found = json.loads(
            go_build.run("mod", "download", "-json", f"{MODULE}@{version}", folder=Path(folder), what=MODULE)
        )
    return Path(found["Dir"])


def _build(programs: Sequence[str], folder: Path, *, version: str) -> None:
    # Built where its source stands it is the main module, with its own sums; a module that requires it has not all.
    module = source(version=version)
    packages = [PACKAGES[program] for program in programs]
    go_build.build(["-ldflags", "-s -w", "-o", f"{folder}/"], *packages, folder=module, what=MODULE)
    for program in programs:
        (folder / program).rename(binary(program, version=version))


@click.command()
@click.option("--all", "is_all", is_flag=True, help="Every version that tests know, not only the newest.")
@click.argument("programs", nargs=-1, type=click.Choice(list(PACKAGES)))
def main(programs: tuple[str, ...], is_all: bool) -> None:
    """Build Istio's PROGRAMS (pilot-agent), unless they are there, and print their paths."""
    try:
        for version in VERSIONS if is_all else (NEWEST,):
            for path in make(*(programs or (AGENT,)), version=version):
                click.echo(path)
    except Missing as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    main()
