"""Where the environment comes from, and what the application's stdin is then: the real command."""

from __future__ import annotations

import contextlib
import os
import subprocess
from pathlib import Path

import pytest

from krun_testbed import processes

pytestmark = pytest.mark.loopback

APP = ["--", "sh", "-c", 'echo "A=$A"; echo "stdin=$(cat)"']


def test_environment_comes_from_a_pipe_and_stdin_is_empty_then(alone: dict[str, str]) -> None:
    done = processes.run(["krun-launch", *APP], env=alone, stdin='{"A": "from the pipe"}\n')
    assert done.stdout == "A=from the pipe\nstdin=\n"


def test_variable_that_is_set_wins_over_the_pipe(alone: dict[str, str]) -> None:
    done = processes.run(["krun-launch", *APP], env={**alone, "A": "own"}, stdin='{"A": "from the pipe"}')
    assert done.stdout == "A=own\nstdin=\n"


def test_pipe_is_the_applications_with_no_env(alone: dict[str, str]) -> None:
    done = processes.run(["krun-launch", "--no-env", *APP], env=alone, stdin='{"A": "data"}')
    assert done.stdout == 'A=\nstdin={"A": "data"}\n'


def test_environment_comes_from_a_file_and_stdin_is_inherited(alone: dict[str, str], tmp_path: Path) -> None:
    file = tmp_path / "env.json"
    file.write_text('{"A": "from the file"}')
    done = processes.run(["krun-launch", "--env", str(file), *APP], env=alone, stdin="words")
    assert done.stdout == "A=from the file\nstdin=words\n"


def test_dash_is_stdin_also_when_that_is_a_file(alone: dict[str, str], tmp_path: Path) -> None:
    file = tmp_path / "env.json"
    file.write_text('{"A": "from the file"}')
    script = f"krun-launch --env - {' '.join(APP[:3])} 'echo $A' < {file}"
    assert processes.run(["sh", "-c", script], env=alone, stdin=None).stdout == "from the file\n"


def test_without_a_pipe_nothing_is_read(alone: dict[str, str]) -> None:
    assert processes.run(["krun-launch", *APP], env=alone, stdin=None).stdout == "A=\nstdin=\n"


def test_complete_object_is_enough_when_the_pipe_is_held_open(alone: dict[str, str]) -> None:
    with processes.start(["krun-launch", *APP], env=alone, stdin=subprocess.PIPE) as running:
        assert running.process.stdin is not None
        os.write(running.process.stdin.fileno(), b'{"A": "early"')
        os.write(running.process.stdin.fileno(), b"}\n")
        running.wait_for("A=early")
        assert running.wait() == 0


def test_silent_pipe_is_75_after_the_deadline_and_says_that_it_waits(alone: dict[str, str]) -> None:
    argv = ["krun-launch", "--env-timeout", "2.5", *APP]
    with processes.start(argv, env=alone, stdin=subprocess.PIPE) as running:
        running.wait_for("waiting for the environment source=stdin")
        assert running.wait() == 75
        assert "environment from stdin: nothing came within 2.5 s" in running.stderr
        assert "A=" not in running.stdout


def test_object_without_an_end_is_75(alone: dict[str, str]) -> None:
    with processes.start(["krun-launch", "--env-timeout", "1", *APP], env=alone, stdin=subprocess.PIPE) as running:
        assert running.process.stdin is not None
        os.write(running.process.stdin.fileno(), b'{"A": ')
        assert running.wait() == 75
        assert "the JSON object did not end within 1 s" in running.stderr


def test_signal_while_the_environment_is_awaited_ends_at_once(alone: dict[str, str]) -> None:
    with processes.start(["krun-launch", *APP], env=alone, stdin=subprocess.PIPE) as running:
        running.wait_for("waiting for the environment")
        assert running.terminate() == 143


@pytest.mark.parametrize(
    ("text", "status", "message"),
    [
        ("", 78, "the program before the pipe failed"),
        ("hello", 65, "not a JSON object"),
        ("[]", 65, "not a JSON object"),
        ('{"PORT_http": 8080}', 65, "PORT_http: its value is no string"),
    ],
)
def test_bad_environment_ends_before_the_application(
    text: str, status: int, message: str, alone: dict[str, str]
) -> None:
    done = processes.run(["krun-launch", *APP], env=alone, stdin=text)
    assert done.returncode == status
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_file_that_is_not_there_is_78_and_named(alone: dict[str, str]) -> None:
    done = processes.run(["krun-launch", "--env", "/no/such/file", *APP], env=alone)
    assert done.returncode == 78
    assert "environment from /no/such/file: cannot be read" in done.stderr


def test_pipeline_with_the_real_discover_runs_the_application(alone: dict[str, str]) -> None:
    script = "krun-discover | krun-launch -- sh -c 'echo namespace=$WORKLOAD_NAMESPACE'"
    done = processes.run(["sh", "-c", script], env={**alone, "WORKLOAD_NAMESPACE": "shop"}, stdin=None)
    assert (done.returncode, done.stdout) == (0, "namespace=shop\n")


@pytest.mark.parametrize(
    ("extra", "argv", "status", "message"),
    [
        ({"KRUN_MODE": "sideways"}, [], 2, "'sideways' is not one of"),
        ({}, ["--mode", "sideways"], 2, "'sideways' is not one of"),
        ({}, ["--grace", "soon"], 2, "not a number of seconds"),
        ({}, ["--no-such-flag"], 2, "No such option"),
        ({}, ["--env", "-", "--no-env"], 2, "give one of them"),
        ({"KRUN_GRACE": "soon"}, [], 78, "KRUN_GRACE='soon': not a number of seconds"),
        ({"KRUN_GRACE": "2", "KRUN_DRAIN": "3"}, [], 78, "KRUN_DRAIN=3 and KRUN_GRACE=2"),
        ({"KRUN_MODE": "proxyless"}, [], 78, "this version of krun-launch cannot do it"),
        ({"KRUN_LOOPBACK": "here"}, [], 78, "KRUN_LOOPBACK='here': not an IPv4 address"),
    ],
)
def test_wrong_usage_is_2_and_wrong_settings_are_78(
    extra: dict[str, str], argv: list[str], status: int, message: str, alone: dict[str, str]
) -> None:
    done = processes.run(["krun-launch", *argv, "--", "echo", "ran"], env={**alone, **extra}, stdin=None)
    assert done.returncode == status
    assert message in done.stderr
    assert "hint:" in done.stderr or status == 78
    assert done.stdout == ""


def test_mode_none_without_an_application_is_78(alone: dict[str, str]) -> None:
    done = processes.run(["krun-launch"], env=alone, stdin=None)
    assert done.returncode == 78
    assert "nothing to run" in done.stderr


def test_dry_run_starts_and_writes_nothing(workload: dict[str, str], tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    env = {**workload, "SECRET_TOKEN": "canary", "KRUN_ENVOY": "/bin/false"}
    done = processes.run(["krun-launch", "--dry-run", "--", "touch", str(tmp_path / "ran")], env=env, stdin=None)
    assert done.returncode == 0
    assert '"mode": "static"' in done.stdout
    assert "canary" not in done.stdout
    assert sorted(tmp_path.rglob("*")) == before


def test_stderr_that_nobody_reads_holds_up_nothing(alone: dict[str, str]) -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writer, b"x" * 4096)
    os.set_blocking(writer, True)
    argv = ["krun-launch", "--no-env", "--", "sh", "-c", "exit 5"]
    # The warning that there is no mesh comes before the application.
    process = subprocess.Popen(argv, env=alone, stdin=subprocess.DEVNULL, stderr=writer)
    try:
        assert process.wait(10) == 5
    finally:
        process.kill()
        process.wait()
        os.close(reader)
        os.close(writer)
