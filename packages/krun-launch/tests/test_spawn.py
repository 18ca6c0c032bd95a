"""The application's status is krun-launch's, and its environment is its own: real processes."""

from __future__ import annotations

import json
import signal
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
    assert done.stderr.count("\n") == 1
    assert "no mesh: the application runs alone" in done.stderr


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
