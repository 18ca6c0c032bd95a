"""The agent's log goes where ours goes, whatever that is, and its user may open it again."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from krun_launch import agent_log
from krun_launch.identity import ENVOY, Identity
from krun_launch.spawn import NULL, SESSION, ProcessSpec, spawn
from krun_testbed import processes

COMPLAINT = "2026-11-26T04:24:08Z\terror\tcache\tfailed"


def said(script: str, *, folder: Path, stderr: int, identity: Identity | None = None) -> int:
    """Run a script as the agent is run, with a stderr of the test's; its status."""
    before = set(processes.children(os.getpid()))
    kept = os.dup(2)
    os.dup2(stderr, 2)
    try:
        pid = spawn(
            ProcessSpec(
                name="agent",
                argv=("/bin/sh", "-c", script),
                env={"PATH": os.environ["PATH"]},
                stdin=NULL,
                group=SESSION,
                is_helper=True,
                identity=identity,
                complaints=folder / "complaints",
                folder="/",
            )
        )
    finally:
        os.dup2(kept, 2)
        os.close(kept)
    # What the script has started is below it, not ours.
    below = set(processes.children(os.getpid())) - before - {pid}
    (relay,) = (child for child in below if parent(child) == os.getpid())
    _, status = os.waitpid(pid, 0)
    # It ends: nobody holds its pipe any more.
    os.waitpid(relay, 0)
    return os.waitstatus_to_exitcode(status)


def parent(pid: int) -> int:
    """Whose child it is; 0 when it is gone."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def test_what_both_streams_say_is_passed_on_and_complaints_are_kept(tmp_path: Path) -> None:
    log = tmp_path / "log"
    (tmp_path / "complaints").write_text("of an earlier agent\n")
    with log.open("wb") as file:
        script = f"echo out; echo words >&2; printf '%s\\n' '{COMPLAINT}'; echo again >/dev/stdout; pwd"
        assert said(script, folder=tmp_path, stderr=file.fileno()) == 0
    assert log.read_text() == f"out\nwords\n{COMPLAINT}\nagain\n/\n"
    assert (tmp_path / "complaints").read_text() == f"{COMPLAINT}\n"
    assert (tmp_path / "complaints").stat().st_mode & 0o777 == 0o600


def test_stdout_can_be_opened_again_where_ours_is_a_socket(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert said("echo words >/dev/stdout", folder=tmp_path, stderr=theirs.fileno()) == 0
        assert ours.recv(100) == b"words\n"


@pytest.mark.netns
@pytest.mark.skipif(os.geteuid() != 0, reason="changes users")
def test_stdout_can_be_opened_again_by_another_user_where_ours_is_a_file_of_root(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with log.open("wb") as file:
        assert said("id -u >/dev/stdout", folder=tmp_path, stderr=file.fileno(), identity=ENVOY) == 0
    assert log.read_text() == "1337\n"


def test_complaints_are_those_of_the_agent_and_of_envoy_in_both_forms() -> None:
    lines = [
        COMPLAINT,
        "2026-11-26T04:24:08Z\twarning\tenvoy config x\tclosed\tthread=1",
        '{"level":"warn","msg":"x"}',
        "Error: failed to get proxy config",
    ]
    others = ["2026-11-26T04:24:08Z\tinfo\tcache\terrors: none", "[2026-11-26] GET / 500 error", ""]
    data = "\n".join([*lines, *others]).encode()
    assert agent_log.complaints(data) == [line.encode() for line in lines]


def test_the_relay_needs_no_reader(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    assert said(f"printf '%s\\n' '{COMPLAINT}'; echo more", folder=tmp_path, stderr=writer) == 0
    os.close(writer)
    assert (tmp_path / "complaints").read_text() == f"{COMPLAINT}\n"
