"""A krun-discover that stays is, to whoever asks for it, krun-token: a real process, told by a real socket."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from krun_testbed import components, processes

pytestmark = pytest.mark.loopback

ASKED = ("kubernetes", "--audience", "istio-ca", "--namespace", "demo")


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    """A machine on which everything is known, and nothing is to be asked."""
    return processes.environment(
        HOME=str(tmp_path),
        PATH=str(Path(sys.executable).parent),
        MESH="static:gateway.example:15443",
        WORKLOAD_NAMESPACE="demo",
        WORKLOAD_NAME="web",
        PROJECT_ID="mesh-demo-7",
        CLOUD_PLATFORM="none",
    )


class Stayed:
    """One that has printed what it found, and what it says afterwards."""

    def __init__(self, process: subprocess.Popen[bytes], channel: socket.socket, folder: Path) -> None:
        self.process = process
        self.channel = channel
        self._said = folder / "said"
        self._said.touch()

    def send(self, data: bytes) -> None:
        """The bytes and a stream, as krun-launch sends them, in two pieces."""
        with self._said.open("wb") as stream:
            socket.send_fds(self.channel, [data[:5]], [stream.fileno()])
        self.channel.sendall(data[5:])
        self.channel.shutdown(socket.SHUT_WR)

    def ends(self) -> tuple[int, str]:
        """Its status, and what it said on the stream that was sent."""
        assert self.process.wait(timeout=30) is not None
        return self.process.returncode, self._said.read_text()


@contextmanager
def stayed(folder: Path, *, env: dict[str, str]) -> Iterator[Stayed]:
    ours, theirs = socket.socketpair()
    argv = [components.command("krun-discover"), "--stay", str(theirs.fileno())]
    with (
        ours,
        theirs,
        subprocess.Popen(
            argv, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, pass_fds=[theirs.fileno()]
        ) as process,
    ):
        theirs.close()
        assert process.stdout is not None
        found = json.loads(process.stdout.readline())
        assert found["WORKLOAD_NAMESPACE"] == "demo"
        yield Stayed(process, ours, folder)


def test_it_prints_first_and_then_is_krun_token_with_that_command_line_and_environment(
    env: dict[str, str], tmp_path: Path
) -> None:
    argv, other = [components.command("krun-token"), *ASKED], {**env, "KUBECONFIG": str(tmp_path / "none")}
    executed = processes.run(argv, env=other)
    assert executed.returncode == 78
    with stayed(tmp_path, env=env) as discover:
        discover.send(json.dumps({"argv": argv, "env": other}).encode())
        assert discover.ends() == (executed.returncode, executed.stderr)


def test_lines_of_its_log_are_krun_tokens_then(env: dict[str, str], tmp_path: Path) -> None:
    env = {**env, "KRUN_LOG_LEVEL": "debug", "KRUN_LOG_FORMAT": "json"}
    argv, other = [components.command("krun-token"), *ASKED], {**env, "KUBECONFIG": "/dev/null"}
    with stayed(tmp_path, env=env) as discover:
        discover.send(json.dumps({"argv": argv, "env": other}).encode())
        status, said = discover.ends()
    assert status == 78
    assert "krun-discover" not in said
    assert "krun-token: error: " in said


def test_it_ends_when_nobody_asks_for_a_token(env: dict[str, str], tmp_path: Path) -> None:
    with stayed(tmp_path, env=env) as discover:
        discover.channel.close()
        assert discover.ends() == (0, "")


@pytest.mark.parametrize("data", [b"nonsense", b"[]", b'{"argv": 3, "env": {}}', b'{"argv": ["krun-token"]}'])
def test_what_is_no_command_is_refused(env: dict[str, str], tmp_path: Path, data: bytes) -> None:
    with stayed(tmp_path, env=env) as discover:
        discover.send(data)
        status, said = discover.ends()
        assert discover.process.stderr is not None
        stderr = discover.process.stderr.read().decode()
    assert (status, said) == (65, "")
    assert stderr.startswith("krun-discover: error: what came to be done after it: no command line")


def test_a_descriptor_that_is_no_socket_is_named(env: dict[str, str]) -> None:
    number = os.open(os.devnull, os.O_RDONLY)
    try:
        done = subprocess.run(
            [components.command("krun-discover"), "--stay", str(number)],
            env=env,
            pass_fds=[number],
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        os.close(number)
    assert done.returncode == 78
    assert done.stderr.startswith(f"krun-discover: error: --stay {number}: ")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("word", ["2", "x", "-1", "99999999999", "٣"])
def test_a_word_that_is_no_descriptor_is_wrong_usage(env: dict[str, str], word: str) -> None:
    done = processes.run([components.command("krun-discover"), f"--stay={word}"], env=env)
    assert (done.returncode, done.stdout) == (2, "")
    assert "--stay" in done.stderr
