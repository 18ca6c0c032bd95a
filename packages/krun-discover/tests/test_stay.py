"""A krun-discover or krun-token that waits is, to whoever asks, krun-token: a real process, told by a real socket."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from krun_testbed import components, processes

pytestmark = pytest.mark.loopback

KUBECONFIG = """
apiVersion: v1
kind: Config
clusters: [{name: a, cluster: {server: "https://127.0.0.1:9", insecure-skip-tls-verify: true}}]
users: [{name: a, user: {token: t}}]
contexts: [{name: a, context: {cluster: a, user: a}}]
current-context: a
"""
ASKED = ("kubernetes", "--audience", "istio-ca", "--namespace", "demo")

both = pytest.mark.parametrize("program", ["krun-discover", "krun-token"])


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
def stayed(folder: Path, *, env: dict[str, str], program: str = "krun-discover") -> Iterator[Stayed]:
    ours, theirs = socket.socketpair()
    argv = [components.command(program), "--stay", str(theirs.fileno())]
    with (
        ours,
        theirs,
        subprocess.Popen(
            argv, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, pass_fds=[theirs.fileno()]
        ) as process,
    ):
        theirs.close()
        assert process.stdout is not None
        if program == "krun-discover":
            found = json.loads(process.stdout.readline())
            assert found["WORKLOAD_NAMESPACE"] == "demo"
        yield Stayed(process, ours, folder)


@both
def test_it_is_krun_token_with_that_command_line_and_environment(
    env: dict[str, str], tmp_path: Path, program: str
) -> None:
    argv, other = [components.command("krun-token"), *ASKED], {**env, "KUBECONFIG": str(tmp_path / "none")}
    executed = processes.run(argv, env=other)
    assert executed.returncode == 78
    with stayed(tmp_path, env=env, program=program) as waiting:
        waiting.send(json.dumps({"argv": argv, "env": other}).encode())
        assert waiting.ends() == (executed.returncode, executed.stderr)


@both
def test_lines_of_its_log_are_krun_tokens_then(env: dict[str, str], tmp_path: Path, program: str) -> None:
    env = {**env, "KRUN_LOG_LEVEL": "debug", "KRUN_LOG_FORMAT": "json"}
    argv, other = [components.command("krun-token"), *ASKED], {**env, "KUBECONFIG": "/dev/null"}
    with stayed(tmp_path, env=env, program=program) as waiting:
        waiting.send(json.dumps({"argv": argv, "env": other}).encode())
        status, said = waiting.ends()
    assert status == 78
    assert "krun-discover" not in said
    assert "krun-token: error: " in said


@both
def test_it_ends_when_nobody_asks_for_a_token(env: dict[str, str], tmp_path: Path, program: str) -> None:
    with stayed(tmp_path, env=env, program=program) as waiting:
        waiting.channel.close()
        assert waiting.ends() == (0, "")


@pytest.mark.parametrize("data", [b"nonsense", b"[]", b'{"argv": 3, "env": {}}', b'{"argv": ["krun-token"]}'])
@both
def test_what_is_no_command_is_refused(env: dict[str, str], tmp_path: Path, data: bytes, program: str) -> None:
    with stayed(tmp_path, env=env, program=program) as waiting:
        waiting.send(data)
        status, said = waiting.ends()
        assert waiting.process.stderr is not None
        stderr = waiting.process.stderr.read().decode()
    assert (status, said) == (65, "")
    assert stderr.startswith(f"{program}: error: what came to be done after it: no command line")


@both
def test_a_descriptor_that_is_no_socket_is_named(env: dict[str, str], program: str) -> None:
    number = os.open(os.devnull, os.O_RDONLY)
    try:
        done = subprocess.run(
            [components.command(program), "--stay", str(number)],
            env=env,
            pass_fds=[number],
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        os.close(number)
    assert done.returncode == 78
    assert done.stderr.startswith(f"{program}: error: --stay {number}: ")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("word", ["2", "x", "-1", "99999999999", "٣"])
@both
def test_a_word_that_is_no_descriptor_is_wrong_usage(env: dict[str, str], word: str, program: str) -> None:
    done = processes.run([components.command(program), f"--stay={word}"], env=env)
    assert (done.returncode, done.stdout) == (2, "")
    assert "--stay" in done.stderr


def test_a_krun_token_that_waits_takes_no_command_beside(env: dict[str, str]) -> None:
    done = processes.run([components.command("krun-token"), "--stay", "5", *ASKED], env=env)
    assert (done.returncode, done.stdout) == (2, "")
    assert "--stay is told by its socket" in done.stderr


@pytest.mark.parametrize("waits", [True, False])
def test_nothing_is_loaded_any_more_when_a_krun_token_that_waits_is_told(
    env: dict[str, str], tmp_path: Path, waits: bool
) -> None:
    """Of a cluster by kubeconfig, whose API server refuses the connection: Python says itself what it imports."""
    (tmp_path / "kubeconfig").write_text(KUBECONFIG)
    told = {**env, "KUBECONFIG": str(tmp_path / "kubeconfig"), "PYTHONVERBOSE": "1", "MESH": ""}
    argv = [components.command("krun-token"), *ASKED]
    if not waits:
        said = processes.run(argv, env=told).stderr
    else:
        with stayed(tmp_path, env=told, program="krun-token") as waiting:
            waiting.send(json.dumps({"argv": argv, "env": told}).encode())
            _, said = waiting.ends()
    assert "connection refused" in said
    loaded = re.findall(r"^import '([a-z_.]+)'", said, re.MULTILINE)
    assert ("yaml" in loaded) is not waits
    assert not waits or loaded == [], loaded
