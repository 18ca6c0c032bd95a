"""``krun-launch --init``: a PID 1 that hears what the shell between hides."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from krun_launch.init import Reports
from krun_testbed import apps, processes

INIT = ["krun-launch", "--init", "--"]
HANDLES = (
    "import signal, sys\n"
    "names = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)\n"
    "signal.pthread_sigmask(signal.SIG_BLOCK, names)\n"
    "print('app is up', flush=True)\n"
    "print('app got', signal.Signals(signal.sigwait(names)).name, flush=True)\n"
    "sys.exit(41)\n"
)
APP = shlex.join([sys.executable, "-I", "-c", HANDLES])


@given(st.lists(st.binary(max_size=20)))
def test_reports_come_in_any_pieces(noise: list[bytes]) -> None:
    whole, pieces = Reports(), Reports()
    data = b"launch 7\n" + b"\n".join(noise) + b"\nfailed krun-discover 78\nfailed krun-launch 78\n"
    whole.feed(data)
    for index in range(len(data)):
        pieces.feed(data[index : index + 1])
    assert (whole.launch, whole.failed) == (pieces.launch, pieces.failed)
    assert whole.failed[-1] == ("krun-launch", 78)


@pytest.mark.parametrize("line", [b"launch ", b"failed x "])
def test_number_that_is_none_is_passed_over(line: bytes) -> None:
    reports = Reports()
    # Longer than int() takes, and in two pieces, as a pipe gives it.
    reports.feed(line + b"9" * 4000)
    reports.feed(b"9" * 4000 + b"\nlaunch 7\n")
    assert (reports.launch, reports.failed) == (7, [])


@pytest.mark.parametrize(
    ("failed", "own", "status"),
    [
        ([], 0, 0),
        ([], 7, 7),
        ([("krun-discover", 77), ("krun-launch", 78)], 78, 77),
        ([("krun-discover", 77), ("krun-launch", 78)], 0, 0),
        ([("krun-launch", 78)], 78, 78),
        ([("krun-discover", 77), ("krun-launch", 143)], 143, 143),
    ],
)
def test_status_is_that_of_the_tool_before_an_empty_pipe(failed: list[tuple[str, int]], own: int, status: int) -> None:
    reports = Reports()
    reports.feed("".join(f"failed {tool} {number}\n" for tool, number in failed).encode())
    assert reports.status(own) == status


@pytest.mark.loopback
@pytest.mark.parametrize("script", ["exit 0", "exit 7", "exit 255"])
def test_status_of_the_command_is_inits(script: str, alone: dict[str, str]) -> None:
    assert processes.run([*INIT, "sh", "-c", script], env=alone).returncode == int(script.split()[1])


@pytest.mark.loopback
def test_death_of_the_command_by_a_signal_is_128_and_its_number(alone: dict[str, str]) -> None:
    assert processes.run([*INIT, "sh", "-c", "kill -USR1 $$"], env=alone).returncode == 138


@pytest.mark.loopback
def test_command_that_is_not_there_is_127(alone: dict[str, str]) -> None:
    done = processes.run([*INIT, "no-such-program"], env=alone)
    assert done.returncode == 127
    assert "no-such-program is not found" in done.stderr


@pytest.mark.loopback
@pytest.mark.parametrize("argv", [["--init"], ["--init", "--dry-run", "--", "true"], ["--init", "--no-env", "true"]])
def test_init_takes_a_command_and_nothing_else(argv: list[str], alone: dict[str, str]) -> None:
    assert processes.run(["krun-launch", *argv], env=alone).returncode == 2


@pytest.mark.loopback
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1])
def test_signal_reaches_the_application_through_the_shell_and_the_status_comes_back(
    number: signal.Signals, alone: dict[str, str]
) -> None:
    script = f"krun-discover | krun-launch -- {APP}"
    with processes.start([*INIT, "sh", "-c", script], env=alone) as running:
        running.wait_for("app is up")
        running.signal(number)
        assert running.wait() == 41
        assert f"app got {number.name}" in running.stdout


@pytest.mark.loopback
def test_sigterm_through_the_shell_drains(workload: dict[str, str], address: str) -> None:
    script = f"krun-discover | krun-launch -- {shlex.join(apps.argv(address=address))}"
    with processes.start([*INIT, "sh", "-c", script], env=workload) as running:
        running.wait_for("krun-launch: ready mode=static")
        assert running.terminate() == 0
        assert 'end step done step="envoy drains"' in running.stderr
        assert "app stops" in running.stdout


@pytest.mark.loopback
@pytest.mark.parametrize("mesh", ["bogus:", "file:/nonexistent"])
def test_failing_discover_shows_its_message_and_status_and_the_application_never_starts(
    mesh: str, alone: dict[str, str]
) -> None:
    env = {**alone, "MESH": mesh}
    own = processes.run(["krun-discover"], env=env)
    done = processes.run([*INIT, "sh", "-c", "krun-discover | krun-launch -- echo started"], env=env)
    assert own.returncode != 0
    assert done.returncode == own.returncode
    assert "krun-discover: error:" in done.stderr
    assert "the program before the pipe failed" in done.stderr
    assert done.stdout == ""


@pytest.mark.loopback
def test_status_of_a_failing_tool_wins_over_78(alone: dict[str, str]) -> None:
    script = "sh -c 'echo failed krun-discover 77 >&'$KRUN_INIT_FD'; exit 77' | krun-launch -- echo started"
    done = processes.run([*INIT, "bash", "-c", script], env=alone)
    assert (done.returncode, done.stdout) == (77, "")


@pytest.mark.loopback
def test_application_does_not_hold_the_pipe_to_the_init(alone: dict[str, str]) -> None:
    script = 'krun-launch --no-env -- sh -c \'echo pipe=$KRUN_INIT_FD; ls /proc/self/fd | tr "\\n" " "\''
    done = processes.run([*INIT, "sh", "-c", script], env=alone, stdin=None)
    # 3 is the folder that ls reads.
    assert done.stdout == "pipe=\n0 1 2 3 "


@pytest.mark.loopback
def test_signal_before_krun_launch_reaches_the_whole_group(alone: dict[str, str]) -> None:
    script = "sh -c 'echo waiting >&2; exec sleep 60' | krun-launch -- echo started"
    # No krun-launch in this one yet: the shell has not come to it.
    with processes.start([*INIT, "sh", "-c", f"sh -c 'echo early >&2; exec sleep 60'; {script}"], env=alone) as running:
        running.wait_for("early")
        assert running.terminate() == 143
        assert running.stdout == ""


@pytest.mark.loopback
def test_krun_launch_that_outlives_its_shell_still_ends_in_order(alone: dict[str, str]) -> None:
    script = f"krun-discover | krun-launch -- {APP} & echo $$; wait"
    with processes.start([*INIT, "sh", "-c", script], env=alone) as running:
        running.wait_for("app is up")
        os.kill(int(running.wait_for(r"^\d+$")[0]), signal.SIGKILL)
        running.signal(signal.SIGTERM)
        assert running.wait() == 41
        assert "app got SIGTERM" in running.stdout


@pytest.mark.loopback
def test_nothing_is_left_after_the_command(alone: dict[str, str]) -> None:
    done = processes.run([*INIT, "sh", "-c", "setsid sleep 60 & echo $!; exit 5"], env=alone)
    assert done.returncode == 5
    assert not Path(f"/proc/{int(done.stdout)}").exists()


@pytest.mark.loopback
def test_death_of_the_init_ends_the_application_in_order(alone: dict[str, str]) -> None:
    script = f"krun-discover | krun-launch -- {APP}"
    with processes.start([*INIT, "sh", "-c", script], env=alone) as running:
        running.wait_for("app is up")
        below = processes.children(running.pid)
        running.signal(signal.SIGKILL)
        running.wait_for("app got SIGTERM")
        processes.wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in below), what="all are gone")


def _namespace() -> list[str]:
    """The words that make a process PID 1 of a namespace of its own, on this machine."""
    unshare = shutil.which("unshare")
    if unshare is None:
        pytest.skip("unshare is not installed: package util-linux")
    for words in (["--pid", "--fork"], ["--user", "--map-root-user", "--pid", "--fork"]):
        argv = [unshare, *words, "--mount-proc", "--kill-child"]
        if subprocess.run([*argv, "true"], capture_output=True, check=False).returncode == 0:
            return argv
    pytest.skip("no namespaces for this user")


ORPHANS = "for i in 1 2 3 4 5; do sh -c 'sleep 0.01 & ' & done; wait; echo settled; sleep 60"


@pytest.mark.netns
@pytest.mark.parametrize("argv", [["krun-launch", "--no-env", "--"], INIT])
def test_orphans_are_reaped_as_pid_1(argv: list[str], alone: dict[str, str]) -> None:
    with processes.start([*_namespace(), *argv, "sh", "-c", ORPHANS], env=alone) as running:
        running.wait_for("settled")
        first = processes.children(running.pid)[0]
        processes.wait_until(lambda: len(processes.children(first)) == 2, what="only the shell and its sleep are left")
        assert Path(f"/proc/{first}/status").read_text().split("NSpid:")[1].split("\n")[0].split()[-1] == "1"
        # unshare passes no signal on: its PID 1 is ended by name.
        os.kill(first, signal.SIGTERM)
        assert running.wait() == 143


@pytest.mark.netns
def test_pipeline_below_pid_1_drains_on_sigterm(alone: dict[str, str]) -> None:
    script = f"krun-discover | krun-launch -- {APP}"
    with processes.start([*_namespace(), *INIT, "sh", "-c", script], env=alone) as running:
        running.wait_for("app is up")
        os.kill(processes.children(running.pid)[0], signal.SIGTERM)
        assert running.wait() == 41, running.said()
        assert "app got SIGTERM" in running.stdout


@pytest.mark.netns
def test_krun_launch_as_pid_1_hears_sigterm_and_kills_on_the_second(alone: dict[str, str]) -> None:
    script = "trap 'echo deaf' TERM; echo up; while true; do sleep 0.05; done"
    with processes.start([*_namespace(), "krun-launch", "--no-env", "--", "sh", "-c", script], env=alone) as running:
        running.wait_for("up")
        first = processes.children(running.pid)[0]
        os.kill(first, signal.SIGTERM)
        running.wait_for("deaf")
        os.kill(first, signal.SIGTERM)
        assert running.wait() == 143


@pytest.mark.netns
def test_bare_shell_as_pid_1_is_warned_of_with_the_fix(alone: dict[str, str]) -> None:
    script = "krun-discover | krun-launch -- true; exit 0"
    done = processes.run([*_namespace(), "sh", "-c", script], env=alone, stdin=None)
    assert done.stderr.count("PID 1 is a shell, which drops SIGTERM") == 1
    below = processes.run([*_namespace(), *INIT, "sh", "-c", script], env=alone, stdin=None)
    assert "PID 1 is a shell" not in below.stderr
