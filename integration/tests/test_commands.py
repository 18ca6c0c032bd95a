"""What every command of the six tools promises alike: help, version, bad flags, logs, signals, no secrets."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from krun_testbed import addresses, processes, tables

pytestmark = pytest.mark.loopback

CANARY = "canary-5bd1e0c7"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl someone@laptop"


@pytest.fixture(params=sorted(tables.COMMANDS))
def command(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def test_help_shows_usage_and_examples_on_stdout(command: str) -> None:
    done = processes.run([command, "--help"])
    assert done.returncode == 0
    assert done.stdout.startswith("Usage: " + command)
    assert "Example" in done.stdout
    assert done.stderr == ""


def test_version_is_one_line(command: str) -> None:
    done = processes.run([command, "--version"])
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{command} 0.1.0\n", "")


def test_bad_flag_is_usage_error_with_hint_and_no_traceback(command: str) -> None:
    done = processes.run([command, "--no-such-flag"])
    assert (done.returncode, done.stdout) == (2, "")
    *_, error, hint = done.stderr.splitlines()
    assert error.startswith(f"{command}: error: ")
    assert "--no-such-flag" in error
    assert hint.startswith("hint: ")
    assert "Traceback" not in done.stderr


def test_shell_completion_is_offered(command: str) -> None:
    variable = f"_{command.replace('-', '_').upper()}_COMPLETE"
    done = processes.run([command], env=processes.environment(**{variable: "bash_source"}))
    assert done.returncode == 0
    assert f"complete -o nosort -F _{command.replace('-', '_')}_completion {command}" in done.stdout


def test_unwritable_stdout_is_no_traceback(command: str) -> None:
    # The reader is gone before the first byte, as in `krun-discover --help | true`.
    reader, writer = os.pipe()
    os.close(reader)
    try:
        with processes.subprocess.Popen(
            [command, "--help"], stdout=writer, stderr=processes.subprocess.PIPE, env=processes.environment()
        ) as process:
            assert process.stderr is not None
            said = process.stderr.read().decode()
            process.wait(20)
    finally:
        os.close(writer)
    assert "Traceback" not in said


def hanging_server(address: str) -> tuple[socket.socket, int]:
    """A server that takes connections and never says a word."""
    server = socket.create_server((address, 0))
    return server, server.getsockname()[1]


# How each command is brought to wait, by its environment and arguments, and what it says when it does.
Waiting = Callable[[str, Path], tuple[list[str], dict[str, str], str]]


def waiting_hboned(address: str, _: Path) -> tuple[list[str], dict[str, str], str]:
    return ["hboned"], {"KRUN_BIND": address, "KRUN_LOOPBACK": address, "PORT": "15009"}, r"ready"


def waiting_hgate(address: str, _: Path) -> tuple[list[str], dict[str, str], str]:
    port = addresses.free_port(address=address)
    routes = {"KRUN_ROUTES": "b.demo=https://b.example"}
    return ["hgate", "--listen", f"{address}:{port}"], routes, r"ready"


def waiting_sshd(address: str, _: Path) -> tuple[list[str], dict[str, str], str]:
    return ["krun-sshd"], {"KRUN_LOOPBACK": address, "SSH_AUTH": KEY}, r"ready"


DAEMONS: dict[str, Waiting] = {"hboned": waiting_hboned, "hgate": waiting_hgate, "krun-sshd": waiting_sshd}


@pytest.mark.parametrize("daemon", sorted(DAEMONS))
def test_daemon_says_ready_once_as_json_and_ends_with_0_on_sigterm(daemon: str, address: str, tmp_path: Path) -> None:
    argv, variables, ready = DAEMONS[daemon](address, tmp_path)
    env = processes.environment(KRUN_LOG_FORMAT="json", **variables)
    with processes.start(argv, env=env) as running:
        running.wait_for(ready)
        assert running.terminate() == 0
        lines = [json.loads(line) for line in running.stderr.splitlines()]
    for line in lines:
        assert {"severity", "time", "message", "tool"} <= set(line)
        assert line["tool"] == daemon
        assert set(line) - tables.log_fields() == set()
    assert len([line for line in lines if "ready" in line["message"]]) == 1
    assert "drained" in lines[-1]["message"]
    assert running.stdout == ""


@pytest.mark.parametrize("daemon", sorted(DAEMONS))
def test_daemon_logs_text_with_its_name_outside_a_container(daemon: str, address: str, tmp_path: Path) -> None:
    argv, variables, ready = DAEMONS[daemon](address, tmp_path)
    with processes.start(argv, env=processes.environment(KRUN_LOG_FORMAT="text", **variables)) as running:
        running.wait_for(ready)
        running.terminate()
        assert all(line.startswith(f"{daemon}: ") for line in running.stderr.splitlines())


@pytest.mark.parametrize("daemon", sorted(DAEMONS))
def test_no_environment_and_no_secret_in_a_daemons_output(daemon: str, address: str, tmp_path: Path) -> None:
    argv, variables, ready = DAEMONS[daemon](address, tmp_path)
    token = tmp_path / "token"
    token.write_text(f"{CANARY}-token")
    variables |= {"PASSWORD": f"{CANARY}-variable", "KRUN_ID_TOKEN_FILE": str(token), "KRUN_LOG_LEVEL": "debug"}
    with processes.start(argv, env=processes.environment(**variables)) as running:
        running.wait_for(ready)
        running.terminate()
    assert CANARY not in running.said()


def test_krun_discover_that_waits_ends_on_sigterm(address: str) -> None:
    server, port = hanging_server(address)
    with server:
        env = processes.environment(GCE_METADATA_HOST=f"{address}:{port}", K_SERVICE="b", GCE_METADATA_TIMEOUT="30")
        del env["NO_GCE_CHECK"]
        with processes.start(["krun-discover"], env=env) as running:
            connection, _ = server.accept()
            with connection:
                running.signal(signal.SIGTERM)
                assert running.wait() == 128 + signal.SIGTERM
            assert "Traceback" not in running.stderr


def test_hbone_that_waits_ends_on_sigterm(address: str) -> None:
    server, port = hanging_server(address)
    with server, processes.start(["hbone", f"http://{address}:{port}/_hbone/22"]) as running:
        connection, _ = server.accept()
        with connection:
            running.signal(signal.SIGTERM)
            assert running.wait() == 128 + signal.SIGTERM
        assert "Traceback" not in running.stderr


def test_krun_launch_that_waits_for_its_environment_ends_on_sigterm() -> None:
    with processes.start(["krun-launch", "--", "true"], stdin=processes.subprocess.PIPE) as running:
        running.wait_for("waiting for the environment")
        running.signal(signal.SIGTERM)
        assert running.wait() == 128 + signal.SIGTERM
        assert "Traceback" not in running.stderr


ONE_SHOTS = {
    "krun-discover": (["krun-discover"], 0),
    "krun-discover --explain": (["krun-discover", "--explain"], 0),
    "krun-launch --dry-run": (["krun-launch", "--no-env", "--dry-run", "--", "sh", "-c", "exit 0"], 0),
    "krun-launch": (["krun-launch", "--no-env", "--", "true"], 0),
    "hbone": (["hbone", "http://127.0.0.1:1/_hbone/22"], 69),
    # Never without a flag: it would change this machine's own rules.
    "krun-iptables --dry-run": (["krun-iptables", "--dry-run"], 0),
    "krun-iptables --show-settings": (["krun-iptables", "--show-settings"], 0),
}


@pytest.mark.parametrize("name", sorted(ONE_SHOTS))
def test_no_environment_and_no_secret_in_a_one_shots_output(name: str, tmp_path: Path) -> None:
    argv, status = ONE_SHOTS[name]
    token = tmp_path / "token"
    token.write_text(f"{CANARY}-token")
    env = processes.environment(
        PASSWORD=f"{CANARY}-variable",
        SSH_AUTH=f"{KEY} {CANARY}",
        KRUN_ID_TOKEN_FILE=str(token),
        KRUN_LOG_LEVEL="debug",
        XDS_ADDR="-",
    )
    done = processes.run(argv, env=env, stdin=None)
    assert done.returncode == status, done.stderr
    assert CANARY not in done.stdout + done.stderr
