"""The command line: what it says, and what it does not import."""

from __future__ import annotations

import sys

import pytest

from krun_launch.command import command
from krun_launch.contract import READS
from krun_testbed import processes

pytestmark = pytest.mark.loopback

# Each would cost more than all of krun-launch; the application must not wait for them.
HEAVY = (
    "asyncio",
    "click",
    "cryptography",
    "ssl",
    "subprocess",
    "http.client",
    "socket",
    "tempfile",
    "shutil",
    "importlib.metadata",
    "logging",
    "typing",
)


def imports(*argv: str, env: dict[str, str]) -> set[str]:
    """The modules that a run of krun-launch imports."""
    code = "from krun_launch.cli import main; main()"
    done = processes.run([sys.executable, "-X", "importtime", "-c", code, *argv], env=env, stdin=None)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    return {line.rpartition("|")[2].strip() for line in lines}


def test_mode_none_imports_nothing_heavy(alone: dict[str, str]) -> None:
    assert imports("--no-env", "--", "true", env=alone) & set(HEAVY) == set()


def test_help_names_the_variables_and_shows_examples(alone: dict[str, str]) -> None:
    done = processes.run(["krun-launch", "--help"], env=alone)
    assert done.returncode == 0
    assert "Examples:" in done.stdout
    assert "KRUN_READY_TIMEOUT" in done.stdout
    assert done.stderr == ""


def test_version_is_one_line(alone: dict[str, str]) -> None:
    done = processes.run(["krun-launch", "--version"], env=alone)
    assert done.stdout.startswith("krun-launch ")
    assert done.stdout.count("\n") == 1


def test_every_variable_of_a_flag_is_declared() -> None:
    assert {str(option.envvar) for option in command.params if option.envvar} <= READS
