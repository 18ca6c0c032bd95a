"""How tests start and end commands: what one test does must not reach the commands of another."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from krun_testbed import processes

pytestmark = pytest.mark.loopback


@pytest.mark.parametrize(("command", "status"), [("exit 3", 3), ("kill -9 $$", 137), ("kill -TERM $$", 143)])
def test_number_of_an_ended_command_is_nobody_elses_until_its_group_is_ended(command: str, status: int) -> None:
    with processes.start(["sh", "-c", command]) as running:
        assert (running.wait(), running.wait()) == (status, status)
        assert Path(f"/proc/{running.pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    assert not Path(f"/proc/{running.pid}").exists()


def test_group_of_an_ended_command_is_ended() -> None:
    with processes.start(["sh", "-c", "sleep 60 & echo $!"]) as running:
        left = int(running.wait_for(r"(\d+)")[1])
        running.signal(signal.SIGKILL)
    processes.wait_until(lambda: not Path(f"/proc/{left}").exists(), what="the command's child is gone")
