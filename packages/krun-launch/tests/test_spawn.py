"""The application's status is krun-launch's, and its environment is its own: real processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from krun_testbed import processes

pytestmark = pytest.mark.loopback

# One krun-launch for many applications would prove nothing: each status takes a process of its own.
SIGNALS = ("HUP", "INT", "QUIT", "ABRT", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM", "TERM")
SHOW = [sys.executable, "-I", "-c"]


def launch(*app: str, env: dict[str, str], stdin: str | None = None) -> tuple[int, str, str]:
    done = processes.run(["krun-launch", "--no-env", "--", *app], env=env, stdin=stdin)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("first", range(0, 256, 32))
def test_every_exit_status_is_passed_on(first: int, alone: dict[str, str]) -> None:
    for status in range(first, first + 32):
        assert launch("sh", "-c", f"exit {status}", env=alone)[0] == status


@pytest.mark.parametrize("name", SIGNALS)
def test_death_by_a_signal_is_128_and_its_number(name: str, alone: dict[str, str]) -> None:
    status, _, _ = launch("sh", "-c", f"ulimit -c 0; kill -{name} $$", env=alone)
    assert status == 128 + signal.Signals[f"SIG{name}"]


def test_application_that_is_not_found_is_127(alone: dict[str, str]) -> None:
    status, _, stderr = launch("no-such-program", "--flag", env=alone)
    assert status == 127
    assert "krun-launch: error: app: no-such-program is not found" in stderr
    assert "Traceback" not in stderr


@pytest.mark.parametrize(("content", "mode"), [("#!/bin/sh\n", 0o644), ("not a program\n", 0o755), ("", 0o755)])
def test_application_that_cannot_be_executed_is_126(
    content: str, mode: int, alone: dict[str, str], tmp_path: Path
) -> None:
    program = tmp_path / "program"
    program.write_text(content)
    program.chmod(mode)
    status, _, stderr = launch(str(program), env=alone)
    assert status == 126
    assert f"krun-launch: error: app: {program} cannot be run" in stderr


def test_script_without_its_interpreter_is_126_and_says_so(alone: dict[str, str], tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_text("#!/no/such/interpreter\n")
    program.chmod(0o755)
    status, _, stderr = launch(str(program), env=alone)
    assert status == 126
    assert "interpreter" in stderr


def test_folder_as_application_is_126(alone: dict[str, str], tmp_path: Path) -> None:
    assert launch(str(tmp_path), env=alone)[0] == 126


def test_flags_and_dashes_of_the_application_are_untouched(alone: dict[str, str]) -> None:
    code = "import json, sys; print(json.dumps(sys.argv[1:]))"
    words = ["--help", "--", "-x", "--mode", "a b", ""]
    _, stdout, _ = launch(*SHOW, code, *words, env=alone)
    assert json.loads(stdout) == words


def test_environment_in_mode_none_is_untouched(alone: dict[str, str]) -> None:
    env = {**alone, "PORT": "15009", "KRUN_LOOPBACK": "127.0.0.5", "EMPTY": "", "SSH_AUTH": "x"}
    done = processes.run(
        ["krun-launch", "--no-env", "--log-level", "warning", "--grace", "3", "--", *SHOW, _DUMP], env=env, stdin=None
    )
    # LC_CTYPE is what a Python that coerces its locale sets for itself.
    assert {k: v for k, v in json.loads(done.stdout).items() if k != "LC_CTYPE"} == env
    # Where PID 1 is a shell, as in many a container, there is a warning of that too.
    said = [line for line in done.stderr.splitlines() if "PID 1 is a shell" not in line]
    assert len(said) == 1
    assert "no mesh: the application runs alone" in said[0]


_DUMP = "import json, os; print(json.dumps(dict(os.environ)))"


def test_application_starts_with_a_clean_signal_state(alone: dict[str, str]) -> None:
    # Not Python, which ignores SIGPIPE and SIGXFSZ itself, nor a shell, which blocks signals while it starts a command.
    _, blocked, _ = launch("grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status", env=alone)
    # Signals 32 and 33 are the C library's own: no program can set them, and some machines pass them on as ignored.
    usable = ~(1 << 31 | 1 << 32)
    assert [int(line.split()[1], 16) & usable for line in blocked.splitlines()] == [0, 0]


def test_application_holds_no_descriptor_of_ours(alone: dict[str, str]) -> None:
    code = "import os; print(sorted(int(n) for n in os.listdir('/proc/self/fd'))[:-1])"
    _, stdout, _ = launch(*SHOW, code, env=alone)
    assert stdout.strip() == "[0, 1, 2]"


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_stream_that_is_closed_is_dev_null_and_not_a_pipe_of_ours(closed: str, alone: dict[str, str]) -> None:
    # Without --no-env: a pipe of our own as number 0 would be read as the environment.
    done = processes.run(
        ["sh", "-c", f"krun-launch -- sh -c 'readlink /proc/$$/fd/* >$OUT; exit 5' {closed}"],
        env={**alone, "KRUN_ENV_TIMEOUT": "1", "OUT": "/dev/null"},
        stdin=None,
    )
    assert done.returncode == 5


def test_error_is_a_status_when_nobody_can_read_it(alone: dict[str, str]) -> None:
    done = processes.run(["sh", "-c", "krun-launch --grace soon -- true 2>&-"], env=alone, stdin=None)
    assert done.returncode == 2


@pytest.mark.parametrize("number", ["0", "1", "2", "63", "9" * 30, "9" * 5000])
def test_number_of_inits_pipe_that_is_none_is_passed_over(number: str, alone: dict[str, str]) -> None:
    argv = ["krun-launch", "--env", "-", "--", "sh", "-c", "echo $A; exit 5"]
    done = processes.run(argv, env={**alone, "KRUN_INIT_FD": number}, stdin='{"A": "b"}')
    assert (done.returncode, done.stdout) == (5, "b\n")
    assert "launch " not in done.stderr
    assert "Traceback" not in done.stderr


def test_environment_that_is_too_large_names_the_variable(alone: dict[str, str]) -> None:
    done = processes.run(["krun-launch", "--", "true"], env=alone, stdin=json.dumps({"BIG": "x" * 1_000_000}))
    assert done.returncode == 126
    assert "app: true cannot be run: Argument list too long" in done.stderr
    assert "look at BIG first" in done.stderr


def test_no_process_left_for_the_application_is_126(alone: dict[str, str]) -> None:
    # Counted for each user: 12345 is nobody's.
    argv = ["prlimit", "--nproc=1", "setpriv", "--reuid=12345", "krun-launch", "--no-env", "--", "true"]
    done = processes.run(argv, env=alone, stdin=None)
    assert done.returncode == 126
    assert "app: no process can be made: Resource temporarily unavailable" in done.stderr


COUNTS = """
import os, signal, sys, time
from krun_launch.loop import Loop, Signalled
from krun_launch.signals import Signals
from krun_launch.spawn import SHARED, ProcessSpec, spawn
with Signals() as signals:
    # One of those that are queued: each that is sent is counted.
    signal.signal(signal.SIGRTMIN, lambda number, frame: None)
    loop, seen = Loop(signals), 0
    def count(timeout):
        global seen
        seen += sum(event == Signalled(number=signal.SIGRTMIN) for event in loop.turn(timeout))
    print("up", flush=True)
    while not seen:
        count(1)
    for _ in range(300):
        spawn(ProcessSpec(name="x", argv=("true",), env=os.environ, group=SHARED))
        count(0)
    print("spawned", flush=True)
    while sys.stdin.read(1):
        pass
    count(0)
    print("seen", seen, flush=True)
"""


def test_signal_to_the_group_during_a_start_is_not_counted_twice(alone: dict[str, str]) -> None:
    with processes.start([*SHOW, COUNTS], env=alone, stdin=subprocess.PIPE) as running:
        running.wait_for("up")
        sent = 0

        def send() -> bool:
            nonlocal sent
            os.killpg(running.pid, signal.SIGRTMIN)
            sent += 1
            return "spawned" in running.stdout

        processes.wait_until(send, what="all are spawned", poll=0.0003)
        assert running.process.stdin is not None
        running.process.stdin.close()
        assert int(running.wait_for(r"seen (\d+)$")[1]) == sent


def test_application_leads_a_group_of_its_own_without_a_terminal(alone: dict[str, str]) -> None:
    _, stdout, _ = launch(*SHOW, "import os; print(os.getpid() == os.getpgrp())", env=alone)
    assert stdout.strip() == "True"


def test_application_gets_our_stdin_when_the_environment_does_not_come_from_it(alone: dict[str, str]) -> None:
    assert launch("cat", env=alone, stdin="through\n")[1] == "through\n"


def test_death_of_krun_launch_takes_the_application_with_it(alone: dict[str, str]) -> None:
    with processes.start(["krun-launch", "--no-env", "--", "sh", "-c", "echo $$; exec sleep 60"], env=alone) as running:
        app = int(running.wait_for(r"^\d+$")[0])
        running.signal(signal.SIGKILL)
        assert running.wait() == 137
        processes.wait_until(lambda: not _lives(app), what="the application is gone")


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_nobody_is_left_when_the_application_ends(alone: dict[str, str]) -> None:
    script = "setsid sh -c 'sleep 60 & echo $!; sleep 60' & setsid sleep 60 & sleep 0.1; exit 3"
    status, stdout, _ = launch("sh", "-c", script, env=alone)
    assert status == 3
    assert not _lives(int(stdout))


@pytest.mark.parametrize("is_below_init", [False, True])
def test_caller_that_ignores_sigchld_changes_nothing(is_below_init: bool, alone: dict[str, str]) -> None:
    # A kernel that is told so reaps by itself, and says of nobody how he ended (waitpid(2)).
    code = "import os, signal, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN); os.execvp(sys.argv[1], sys.argv[1:])"
    init = ["krun-launch", "--init", "--"] if is_below_init else []
    app = ["sh", "-c", "grep SigIgn /proc/self/status; exit 7"]
    done = processes.run([*SHOW, code, *init, "krun-launch", "--no-env", "--", *app], env=alone)
    assert done.returncode == 7
    ignored = int(done.stdout.split()[1], 16)
    assert not ignored & (1 << (signal.SIGCHLD - 1))
    assert "Traceback" not in done.stderr
