"""The runner of ``make test``: what a machine lacks is said and left out, and in CI that fails."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from krun_testbed import processes

pytestmark = pytest.mark.loopback


def tiers(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The runner, as ``make test`` calls it; without CI unless it is given."""
    argv = [sys.executable, "-m", "krun_testbed.tiers", *arguments]
    return processes.run(argv, env=processes.environment(**environment), stdin=None, timeout=100)


def test_without_ssh_the_tier_is_left_out_with_the_package_to_install(tmp_path: Path) -> None:
    done = tiers("--tier", "loopback", PATH=str(tmp_path))
    assert "loopback    left out: ssh: not found: install the package openssh-client" in done.stdout
    assert "0 passed, 0 failed, 0 skipped" in done.stdout
    assert done.returncode == 0


def test_without_envoy_the_tier_is_left_out_with_the_way_to_get_it(tmp_path: Path) -> None:
    # A package of that name without the binary in it, found before the real one.
    (tmp_path / "envoy").mkdir()
    (tmp_path / "envoy" / "__init__.py").touch()
    done = tiers("--tier", "loopback", PYTHONPATH=str(tmp_path))
    assert "loopback    left out: envoy: " in done.stdout
    assert "cannot be executed" in done.stdout
    assert done.returncode == 0


def test_without_docker_the_tier_of_containers_is_left_out_with_the_package_to_install(tmp_path: Path) -> None:
    done = tiers("--tier", "containers", PATH=str(tmp_path))
    assert "containers  left out: docker: not found: install the package docker.io" in done.stdout
    assert done.returncode == 0


@pytest.mark.parametrize("value", ["true", "1"])
def test_in_ci_a_tier_that_is_left_out_fails(value: str, tmp_path: Path) -> None:
    done = tiers("--tier", "loopback", PATH=str(tmp_path), CI=value)
    assert "loopback    left out: " in done.stdout
    assert "in CI every tier and every test must run" in done.stdout
    assert done.returncode == 1


@pytest.mark.parametrize(("value", "status"), [("true", 1), ("false", 0), ("", 0)])
def test_in_ci_a_test_that_is_skipped_fails(value: str, status: int, tmp_path: Path) -> None:
    file = tmp_path / "test_skipped.py"
    file.write_text("import pytest\ndef test_skipped(): pytest.skip('no reason')\ndef test_passes(): pass\n")
    done = tiers("--tier", "pure", str(file), CI=value)
    assert "1 passed, 0 failed, 1 skipped" in done.stdout
    assert done.returncode == status


def test_a_failing_test_and_a_tier_without_tests_fail(tmp_path: Path) -> None:
    file = tmp_path / "test_fails.py"
    file.write_text("def test_fails(): raise AssertionError\n")
    done = tiers("--tier", "pure", str(file))
    assert "0 passed, 1 failed, 0 skipped" in done.stdout
    assert done.returncode == 1
    assert tiers("--tier", "loopback", str(file)).returncode == 1


UNSTEADY = """
import pathlib, pytest
pytestmark = pytest.mark.loopback
@pytest.mark.parametrize("number", range({count}))
def test_second_time(number):
    seen = pathlib.Path(__file__).with_name(f"seen-{{number}}")
    first = not seen.exists()
    seen.touch()
    assert not first and number not in {always}
def test_passes(): pass
"""


@pytest.mark.parametrize(("value", "status"), [("true", 1), ("", 0)])
def test_a_few_that_failed_are_run_once_more_and_listed_as_unsteady_which_fails_in_ci(
    value: str, status: int, tmp_path: Path
) -> None:
    file = tmp_path / "test_unsteady.py"
    file.write_text(UNSTEADY.format(count=2, always=[]))
    done = tiers("--tier", "loopback", str(file), CI=value)
    counted, _, listed = done.stdout.partition("unsteady, failed at first and passed alone:\n")
    assert counted.endswith("3 passed, 0 failed, 0 skipped\n")
    lines = [line for line in listed.splitlines() if line.startswith("loopback: ")]
    names = sorted(line.rpartition("/")[2].rpartition(" ")[2] for line in lines)
    assert names == [f"test_unsteady.py::test_second_time[{number}]" for number in (0, 1)]
    assert ("in CI every test must pass at once" in done.stdout) == bool(status)
    assert done.returncode == status


@pytest.mark.parametrize(("count", "always", "counts"), [(2, [1], "2 passed, 1 failed"), (4, [], "1 passed, 4 failed")])
def test_one_that_fails_twice_and_many_that_fail_are_failures(
    count: int, always: list[int], counts: str, tmp_path: Path
) -> None:
    file = tmp_path / "test_unsteady.py"
    file.write_text(UNSTEADY.format(count=count, always=always))
    done = tiers("--tier", "loopback", str(file))
    assert f"\n{counts}, 0 skipped" in done.stdout
    assert done.returncode == 1


def test_the_long_form_asks_hypothesis_for_more_and_takes_pytests_flags(tmp_path: Path) -> None:
    # What `make soak` sets: its environment and its flag, on one small test.
    make = shutil.which("make") or pytest.skip("make is not installed")
    root = Path(__file__).parents[2]
    shown = processes.run([make, "--dry-run", "--always-make", "-C", str(root), "soak"], stdin=None).stdout
    assert "KRUN_SOAK=1 HYPOTHESIS_PROFILE=soak" in shown
    assert "-m krun_testbed.tiers --timeout=3600" in shown
    file = tmp_path / "test_long.py"
    file.write_text(
        "import hypothesis, os\n"
        "def test_long(): assert hypothesis.settings().max_examples == 2000 and os.environ['KRUN_SOAK'] == '1'\n"
    )
    done = tiers("--tier", "pure", "--timeout=3600", str(file), KRUN_SOAK="1", HYPOTHESIS_PROFILE="soak")
    assert "1 passed, 0 failed, 0 skipped" in done.stdout
    assert done.returncode == 0
