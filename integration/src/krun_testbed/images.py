"""Every image: golden and hgate as users build them, and those of the tests on top; ``make images``.

Users' images are called krun/golden:dev and krun/hgate:dev. Those of the tests are tagged by the checkout they are
made from, so that two checkouts on one machine do not test each other's.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import click

from krun_testbed import components, docker_engine, images_base, images_wheels, tables
from krun_testbed.docker_engine import Failed, docker

ROOT = tables.ROOT
CHECKOUT = hashlib.sha256(str(ROOT).encode()).hexdigest()[:8]
LABEL = "krun-testbed"
HOME = "krun-testbed.checkout"  # on images of the tests: where they are from
TESTS = ROOT / "integration" / "images"
STATE = ROOT / "dist" / "images.json"
# What an image can depend on, below the root.
SOURCES = ("constraints.txt", ".dockerignore", "packages", "images", "integration/images")
KEPT = 3  # builder stages of each kind that are kept, for the next build


@dataclass(frozen=True, kw_only=True)
class Image:
    """One image: where its Dockerfile is, what it is built on, and out of which folder."""

    name: str
    dockerfile: Path
    context: Path
    on: str = "base"


def plan(suite: str = images_base.SUITE) -> tuple[Image, ...]:
    """All images, each after the one it is built on."""
    users = [
        Image(name=name, dockerfile=ROOT / "images" / name / "Dockerfile", context=ROOT) for name in ("golden", "hgate")
    ]
    on_golden = [
        Image(name=name, dockerfile=TESTS / name / "Dockerfile", context=TESTS, on="golden")
        for name in ("pipeline", "entrypoint", "handmade", "file")
    ]
    alone = [Image(name=name, dockerfile=TESTS / name / "Dockerfile", context=ROOT) for name in ("tunnel", "picked")]
    parts = [
        Image(name="tools", dockerfile=TESTS / "tools" / "Dockerfile", context=TESTS),
        Image(name="redis", dockerfile=TESTS / "redis" / "Dockerfile", context=images_base.extra(suite)),
    ]
    return (*users, *on_golden, *alone, *parts)


def tag(name: str) -> str:
    """What an image of the tests is called; ``base`` is the one that all are built on."""
    return images_base.tag() if name == "base" else f"{LABEL}/{name}:{CHECKOUT}"


def make() -> None:
    """Build every image of the tests, unless they are those of this state of the sources."""
    STATE.parent.mkdir(exist_ok=True)
    with _locked():
        wanted = plan()
        state = _state()
        if state == _noted() and _exist(tag(name) for name in ("base", *(image.name for image in wanted))):
            return
        images_base.make()
        images_wheels.make()
        for image in wanted:
            _build(image, "--label", f"{HOME}={ROOT}", base=tag(image.on), name=tag(image.name))
        STATE.write_text(json.dumps({"state": state}))
        _tidy()


def make_users(*, base: str, version: str) -> None:
    """Build golden and hgate for a user, on that base, or on the one of the tests when there is none."""
    with _locked():
        images_wheels.make()
        for image in plan()[:2]:
            _build(image, base=base or images_base.make(), name=f"krun/{image.name}:{version}", network=bool(base))
        _tidy()


@contextlib.contextmanager
def _locked() -> Iterator[None]:
    with (docker_engine.cache() / "images.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def size(name: str) -> int:
    """Bytes of an image, with all that it is built on."""
    return int(docker("image", "inspect", "--format", "{{.Size}}", name).stdout)


def _build(image: Image, *options: str, base: str, name: str, network: bool = False) -> None:
    started = time.monotonic()
    docker(
        "build",
        *options,
        *([] if network else ["--network", "none"]),
        *("--build-arg", f"BASE={base}", "--label", f"{LABEL}={CHECKOUT}"),
        *("--file", str(image.dockerfile), "--tag", name, str(image.context)),
        timeout=900,
    )
    click.echo(f"image {name:<32} {time.monotonic() - started:5.1f} s  {size(name) / 1e6:4.0f} MB", err=True)


def _state() -> str:
    digest = hashlib.sha256(images_base.tag().encode())
    for source in SOURCES:
        found = [ROOT / source] if (ROOT / source).is_file() else sorted((ROOT / source).rglob("*"))
        for path in found:
            if path.is_file() and "__pycache__" not in path.parts and "tests" not in path.relative_to(ROOT).parts:
                digest.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _noted() -> str:
    with contextlib.suppress(OSError, ValueError, KeyError):
        return str(json.loads(STATE.read_text())["state"])
    return ""


def _exist(names: Iterable[str]) -> bool:
    return docker("image", "inspect", *names, check=False).returncode == 0


def _tidy() -> None:
    """Remove what a build has replaced, and the images of checkouts that are gone.

    Of the builder stages, the cache of the next build, some are kept.
    """
    format_ = '{{.Id}} {{index .Config.Labels "' + HOME + '"}}'
    if ids := docker("images", "--quiet", "--filter", f"label={HOME}").stdout.split():
        for line in docker("image", "inspect", "--format", format_, *set(ids)).stdout.splitlines():
            identifier, _, path = line.partition(" ")
            if not Path(path).is_dir():
                docker("image", "rm", "--force", identifier, check=False)
    docker("image", "prune", "--force", "--filter", f"label={LABEL}={CHECKOUT}")
    for stage in ("golden", "hgate", "tunnel", "picked"):
        listed = docker("images", "--quiet", "--filter", "dangling=true", "--filter", f"label=krun.stage={stage}")
        for old in listed.stdout.split()[KEPT:]:
            docker("image", "rm", old, check=False)


@click.command()
@click.option("--base", default="", metavar="IMAGE", help="What to build on, instead of a small Debian made here.")
@click.option("--tag", "version", default="dev", show_default=True, help="krun/golden and krun/hgate with this tag.")
@click.option("--tests", is_flag=True, help="Build the images of the tests instead.")
def main(base: str, version: str, tests: bool) -> None:
    """Build krun/golden and krun/hgate out of this tree."""
    try:
        with docker_engine.used():
            make() if tests else make_users(base=base, version=version)
    except (components.Missing, Failed) as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    main()
