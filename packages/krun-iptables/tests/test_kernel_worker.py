"""The second process that does several steps: what it says arrives, and nobody waits for it without a limit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

# Each in a process of its own, which forks.
HEAD = """\
import os, sys
from krun_iptables import kernel_worker
from krun_iptables.errors import Denied, Failure
kernel_worker.TIMEOUT = 0.3
def mend(): print("mended", flush=True)
def run(work):
    try: print(*kernel_worker.watched(work, mend=mend), flush=True)
    except Failure as failure: print(type(failure).__name__, failure.message, flush=True)
"""
GOES_ON = """\
def work():
    os.write(1, b"%d\\n" % os.posix_spawn("/bin/sleep", ["sleep", "60"], {}))
    os.kill(os.getpid(), 9)
run(work)
"""
WAITS = """\
def work():
    os.write(1, b"works\\n")
    os.read(0, 1)
    return "applied", "nft"
run(work)
"""


def start(code: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", HEAD + code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def said(code: str) -> str:
    out, complained = start(code).communicate(timeout=30)
    assert complained == ""
    return out


def test_what_was_done_is_returned() -> None:
    assert said('run(lambda: ("applied", "nft"))') == "applied nft\n"


@pytest.mark.parametrize("size", [1, 500_000])  # more than a pipe holds
def test_a_failure_is_raised_whole(size: int) -> None:
    assert said(f'def work(): raise Denied("x" * {size})\nrun(work)') == f"Denied {'x' * size}\n"


def test_a_worker_that_is_killed_is_mended() -> None:
    assert said("run(lambda: os.kill(os.getpid(), 9))") == (
        "mended\nUnreachable the work was ended by signal 9: all is as it was before\n"
    )


def test_what_a_killed_worker_has_started_is_waited_for_up_to_its_limit() -> None:
    process = start(GOES_ON)
    assert process.stdout is not None
    sleep = int(process.stdout.readline())
    try:
        assert process.stdout.readline() == "mended\n"
        assert "by signal 9" in process.stdout.readline()
        assert process.wait(30) == 0
    finally:
        os.kill(sleep, signal.SIGKILL)
        process.communicate()


def test_a_worker_goes_on_in_silence_when_nobody_hears_it_any_more() -> None:
    process = start(WAITS)
    assert process.stdout is not None
    assert process.stdout.readline() == "works\n"
    process.kill()
    process.wait()
    assert process.communicate("\n", timeout=30) == ("", "")
