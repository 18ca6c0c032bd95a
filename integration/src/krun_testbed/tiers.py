"""Run the tiers of tests that this machine allows, one after the other, and say at the end which were left out and why.

``make test`` calls it. In CI (``CI=true``) a tier that is left out, or a test that is skipped, fails the run.

Thousands of tests use real processes, kernels and clocks of a machine that they share with others. So a few that failed
are run once more, alone, when their tier is through: those that pass then are listed as unsteady, each by its name.
That tells where to look, and is no pass: in CI it fails the run.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import click

from krun_testbed import components, docker_engine, images, istio_build, kubernetes_build, tables

# More failures of a tier are no accident.
MOST_AGAIN = 3


@dataclass(frozen=True, kw_only=True)
class Tier:
    """One kind of tests: what marks them, and what they need of the machine."""

    name: str
    expression: str
    needs: str
    lacks: Callable[[], str]
    # What runs around its tests; Missing from it leaves the tier out, like ``lacks``.
    around: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext
    # How tests come to the workers: by the file where each makes a world of its own, which takes a while.
    spread: str = "load"
    # Whether it meets other processes: else a test that fails does so again.
    has_second: bool = True


@dataclass(frozen=True, kw_only=True)
class Result:
    """How a tier went; ``left_out`` is the reason when it did not run.

    ``unsteady``: tests that failed, and passed when run again; they are among those that passed.
    """

    name: str
    passed: int = 0
    unsteady: tuple[str, ...] = ()
    failed: int = 0
    skipped: int = 0
    seconds: float = 0.0
    left_out: str = ""


def _nothing() -> str:
    return ""


def _loopback() -> str:
    try:
        components.envoy()
        components.program("ssh", package="openssh-client")
        for shell in ("dash", "busybox", "shellcheck"):
            components.program(shell, package=shell)
    except components.Missing as missing:
        return str(missing)
    return ""


def _namespaces() -> str:
    if not sys.platform.startswith("linux"):
        return "namespaces are Linux's"
    try:
        unshare = components.program("unshare", package="util-linux")
        components.program("ip", package="iproute2")
        for kind in ("legacy", "nft"):
            components.program(f"iptables-{kind}-restore", package="iptables")
        components.program("nft", package="nftables")
    except components.Missing as missing:
        return str(missing)
    own = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    tried = subprocess.run(
        [unshare, *own, "--net", "--pid", "--fork", "--mount-proc", "true"], capture_output=True, text=True, check=False
    )
    return "" if tried.returncode == 0 else f"unshare --net --pid: {tried.stderr.strip()}"


def _containers() -> str:
    if not sys.platform.startswith("linux"):
        return "tests reach containers by their addresses, as on Linux only"
    try:
        components.envoy()
        components.program("docker", package="docker.io")
        components.compose()
        components.program("mmdebstrap", package="mmdebstrap")
    except components.Missing as missing:
        return str(missing)
    return ""


def _kubernetes() -> str:
    if not sys.platform.startswith("linux"):
        return "etcd and kube-apiserver listen on loopback addresses of their own, as on Linux only"
    try:
        components.program("etcd", package="etcd-server")
    except components.Missing as missing:
        return str(missing)
    return ""


@contextlib.contextmanager
def _apiserver() -> Iterator[None]:
    """kube-apiserver built, where it is not yet: the workers then find it."""
    kubernetes_build.make()
    yield


@contextlib.contextmanager
def _agent() -> Iterator[None]:
    """pilot-agent built, where it is not yet: of the newest version, and of all of them for the long forms."""
    for version in istio_build.VERSIONS if os.environ.get("KRUN_SOAK") else (istio_build.NEWEST,):
        istio_build.make(istio_build.AGENT, version=version)
    yield


@contextlib.contextmanager
def _istiod() -> Iterator[None]:
    """All that a mesh's tests run, built: the agent and istiod of the versions that are chosen, and Kubernetes."""
    kubernetes_build.make()
    for version in map(istio_build.version_of, istio_build.chosen()):
        istio_build.make(*istio_build.PACKAGES, version=version)
        for name in istio_build.FILES:
            istio_build.file(name, version=version)
    yield


def _mesh() -> str:
    if os.geteuid() != 0:
        return "rules name users that only root can be"
    return _namespaces() or _kubernetes()


@contextlib.contextmanager
def _engine() -> Iterator[None]:
    """An engine for the tier's time, with the images made: the workers then find them."""
    with docker_engine.used():
        images.make()
        yield


@contextlib.contextmanager
def _meshed() -> Iterator[None]:
    with _istiod(), _engine():
        yield


TIERS = (
    Tier(
        name="pure",
        expression="not loopback and not netns and not istio and not kubernetes and not mesh and not containers",
        needs="nothing",
        lacks=_nothing,
        has_second=False,
    ),
    Tier(
        name="loopback",
        expression="loopback and not netns and not istio and not kubernetes and not mesh and not containers",
        needs="Envoy, OpenSSH, shells",
        lacks=_loopback,
    ),
    Tier(
        name="netns",
        expression="netns and not istio and not kubernetes and not mesh and not containers",
        needs="root or user namespaces, iptables, nft, ip",
        lacks=_namespaces,
    ),
    Tier(
        name="istio",
        expression="istio and not kubernetes and not mesh and not containers",
        needs="what netns needs; Go, from a wheel where the machine has none (pilot-agent is built, once)",
        lacks=_namespaces,
        around=_agent,
    ),
    Tier(
        name="kubernetes",
        expression="kubernetes and not mesh and not containers",
        needs="etcd; Go, from a wheel where the machine has none (kube-apiserver is built, once)",
        lacks=_kubernetes,
        around=_apiserver,
    ),
    Tier(
        name="mesh",
        expression="mesh and not containers",
        needs="root, and what netns, istio and kubernetes need (istiod is built, once)",
        lacks=_mesh,
        around=_istiod,
        spread="loadfile",
    ),
    Tier(
        name="containers",
        expression="containers and not mesh",
        needs="Docker (root starts an engine), docker-compose, mmdebstrap",
        lacks=_containers,
        around=_engine,
    ),
    Tier(
        name="meshed",
        expression="containers and mesh",
        needs="what mesh and containers need",
        lacks=lambda: _mesh() or _containers(),
        around=_meshed,
        spread="loadfile",
    ),
)
LINTERS = (
    ("ruff", "check", "--quiet", "."),
    ("ruff", "format", "--check", "--quiet", "."),
    (
        "mypy",
        "--no-error-summary",
        *sorted(str(path) for path in tables.ROOT.glob("packages/*/src")),
        "integration/src",
    ),
    ("lint-imports", "--no-logo"),
)


def lint() -> Result:
    """Ruff, mypy strict and the import rules; each counts as one test."""
    started = time.monotonic()
    failed = 0
    for name, *arguments in LINTERS:
        done = subprocess.run(
            [components.command(name), *arguments], cwd=tables.ROOT, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            failed += 1
            click.echo(f"{name} {' '.join(arguments)}\n{done.stdout}{done.stderr}")
    return Result(name="lint", passed=len(LINTERS) - failed, failed=failed, seconds=time.monotonic() - started)


def run(tier: Tier, *, extra: tuple[str, ...] = ()) -> Result:
    """Run one tier with pytest, two workers, and count what it reports."""
    lacks = tier.lacks()
    if lacks:
        return Result(name=tier.name, left_out=lacks)
    click.echo(f"\n== {tier.name} (needs {tier.needs})", err=False)
    started = time.monotonic()
    try:
        with tier.around():
            return dataclasses.replace(_pytest(tier, extra=extra), seconds=time.monotonic() - started)
    except components.Missing as missing:
        return Result(name=tier.name, left_out=str(missing))
    except docker_engine.Failed as error:
        click.echo(str(error))
        return Result(name=tier.name, failed=1, seconds=time.monotonic() - started)


def _pytest(tier: Tier, *, extra: tuple[str, ...]) -> Result:
    with tempfile.TemporaryDirectory() as folder:
        report, cache = Path(folder) / "report.xml", Path(folder) / "cache"
        command = [sys.executable, "-m", "pytest", "-q", "-m", tier.expression, f"--junit-xml={report}"]
        command += ["-o", f"cache_dir={cache}", *extra]
        spread = ["-n", "2", f"--dist={tier.spread}"]
        status = subprocess.run([*command, *spread], cwd=tables.ROOT, check=False).returncode
        passed, failed, skipped = _counts(report)
        names = _failed(cache)
        unsteady: tuple[str, ...] = ()
        if status == 1 and tier.has_second and 0 < len(names) <= MOST_AGAIN:
            click.echo(f"once more, alone: {', '.join(names)}")
            again = ["-n", "0", "--last-failed", "--last-failed-no-failures=none"]
            subprocess.run([*command, *again], cwd=tables.ROOT, check=False)
            unsteady = tuple(name for name in names if name not in _failed(cache))
            passed, failed = passed + len(unsteady), len(names) - len(unsteady)
    # Statuses above 1: pytest itself could not run, or collected nothing; that is no success.
    failed = 1 if status > 1 and failed == 0 else failed
    return Result(name=tier.name, passed=passed, failed=failed, skipped=skipped, unsteady=unsteady)


def _failed(cache: Path) -> tuple[str, ...]:
    """Those that failed last, as pytest notes it."""
    file = cache / "v" / "cache" / "lastfailed"
    return tuple(json.loads(file.read_text(encoding="utf-8"))) if file.exists() else ()


def _counts(report: Path) -> tuple[int, int, int]:
    if not report.exists():
        return 0, 1, 0
    total = failed = skipped = 0
    for suite in ElementTree.parse(report).getroot().iter("testsuite"):
        total += int(suite.get("tests", "0"))
        failed += int(suite.get("failures", "0")) + int(suite.get("errors", "0"))
        skipped += int(suite.get("skipped", "0"))
    return total - failed - skipped, failed, skipped


def summary(results: list[Result]) -> str:
    """The table at the end, and the plain line that counts everything."""
    lines = ["", "tier        passed  failed  skipped  seconds"]
    for result in results:
        if result.left_out:
            lines.append(f"{result.name:<10}  left out: {result.left_out}")
        else:
            counts = f"{result.passed:>6}  {result.failed:>6}  {result.skipped:>7}"
            lines.append(f"{result.name:<10}  {counts}  {result.seconds:>7.1f}")
    passed, failed, skipped = (sum(getattr(r, name) for r in results) for name in ("passed", "failed", "skipped"))
    lines += ["", f"{passed} passed, {failed} failed, {skipped} skipped"]
    unsteady = [f"{result.name}: {name}" for result in results for name in result.unsteady]
    if unsteady:
        lines += ["unsteady, failed at first and passed alone:", *unsteady]
    return "\n".join(lines)


@click.command(context_settings={"ignore_unknown_options": True})
@click.option("--tier", "names", multiple=True, help="Only this tier (repeat for several).")
@click.argument("pytest_arguments", nargs=-1, type=click.UNPROCESSED)
def main(names: tuple[str, ...], pytest_arguments: tuple[str, ...]) -> None:
    """Run the tiers of tests, and say how each went."""
    results = [] if names and "lint" not in names else [lint()]
    results += [run(tier, extra=pytest_arguments) for tier in TIERS if not names or tier.name in names]
    click.echo(summary(results))
    in_ci = os.environ.get("CI", "") not in ("", "false", "0")
    bad = any(result.failed for result in results)
    if in_ci and any(result.left_out or result.skipped for result in results):
        click.echo("in CI every tier and every test must run")
        bad = True
    if in_ci and any(result.unsteady for result in results):
        click.echo("in CI every test must pass at once")
        bad = True
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
