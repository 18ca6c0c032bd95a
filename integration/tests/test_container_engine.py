"""The engine of the container tests: found or started, ended by who started it, and its own words when it fails."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from krun_testbed import components, containers, docker_engine, images
from krun_testbed.docker_engine import docker

pytestmark = [pytest.mark.containers, pytest.mark.timeout(300), pytest.mark.usefixtures("engine")]

NOWHERE = "unix:///nonexistent/docker.sock"
LIFE = """
import os
from krun_testbed import docker_engine as engine
assert not engine.answers()
with engine.used():
    with engine.used():
        assert engine.answers()
    assert engine.answers(), "its first user still needs it"
assert not engine.answers(), "its last user ends it"
engine.start(keep=True)
with engine.used():
    pass
assert engine.answers(), "one that was started to stay stays"
assert engine.stop()
assert not engine.answers()
assert not engine.stop()
# The pid file of one that was killed names a process that is no engine, but lives.
engine.PIDFILE.write_text(str(os.getpid()))
with engine.used():
    assert engine.answers()
"""


@pytest.fixture
def cache() -> Iterator[Path]:
    """A cache folder that any user may write to."""
    with tempfile.TemporaryDirectory(prefix="krun-cache-") as folder:
        Path(folder).chmod(0o777)
        yield Path(folder)


def module(*arguments: str, before: str = "pass", **variables: str) -> subprocess.CompletedProcess[str]:
    """The module as a command, in a process of its own."""
    code = f"import os, sys; from krun_testbed import docker_engine; {before}; docker_engine.main({list(arguments)!r})"
    argv = [sys.executable, "-c", code]
    return subprocess.run(argv, env={**os.environ, **variables}, capture_output=True, text=True, check=False)


def test_engine_that_does_not_come_up_is_reported_in_its_own_words(cache: Path) -> None:
    # A second dockerd beside the one that runs: it sees the other's pid file, and ends.
    if os.geteuid() != 0:
        pytest.skip("only root starts an engine")
    done = module("start", DOCKER_HOST=NOWHERE, KRUN_CACHE=str(cache))
    assert done.returncode == 1
    assert "dockerd: ended with 1:\n" in done.stderr
    assert "docker.pid" in done.stderr
    assert docker_engine.answers()


def test_user_who_may_start_no_engine_is_told_so(cache: Path) -> None:
    before = "os.setuid(65534)" if os.geteuid() == 0 else "pass"
    done = module("start", before=before, DOCKER_HOST=NOWHERE, KRUN_CACHE=str(cache))
    assert (done.returncode, done.stderr) == (
        1,
        "Error: docker: no engine answers, and only root may start one\n",
    )


def test_engine_that_was_not_started_here_is_not_ended(cache: Path) -> None:
    done = module("stop", KRUN_CACHE=str(cache))
    assert (done.returncode, done.stderr) == (1, "Error: no engine runs that was started here\n")
    assert module("status", KRUN_CACHE=str(cache)).stdout == "an engine answers, not started here\n"


def test_engine_ends_with_its_last_user_unless_it_was_started_to_stay(cache: Path) -> None:
    # A whole engine beside the one that runs: in namespaces of its own, where it keeps its files in memory.
    if os.geteuid() != 0:
        pytest.skip("only root starts an engine")
    unshare = components.program("unshare", package="util-linux")
    script = 'mount -t tmpfs none /run && mkdir -p /var/lib/docker && mount -t tmpfs none /var/lib/docker && exec "$@"'
    done = subprocess.run(
        [unshare, "--mount", "--net", "--pid", "--fork", "--mount-proc", "--kill-child"]
        + ["sh", "-c", script, "sh", sys.executable, "-c", LIFE],
        env={**os.environ, "KRUN_CACHE": str(cache)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert docker_engine.answers()


def test_containers_of_a_run_that_was_killed_are_removed_by_the_next_one_and_no_others() -> None:
    # No process has this number with that age: its owner is gone.
    gone = docker("run", "--detach", "--label", f"{containers.OWNER}=1:0", images.tag("tools")).stdout.strip()
    with containers.started(images.tag("tools")) as running:
        containers.sweep()
        there = docker("ps", "--all", "--quiet", "--no-trunc").stdout.split()
    assert gone not in there
    assert running.identifier in there
