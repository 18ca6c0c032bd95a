"""hbone: what it says when there is no tunnel, and how it gets another."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from pathlib import Path

import pytest

from krun_testbed import processes
from krun_testbed.certificates import Authority
from krun_testbed.h2_peers import Front
from krun_testbed.tunnels import (
    connect,
    echo,
    forward,
    greet,
    lines,
    pipe,
    server,
    target,
    url,
)

pytestmark = pytest.mark.loopback


@pytest.mark.parametrize(
    ("status", "exit_status", "hint"),
    [
        (401, 77, "audience"),
        (403, 77, "invoker"),
        (404, 78, "KRUN_OFFER"),
        (429, 69, "instance"),
        (502, 69, "log"),
        (503, 69, "listens"),
    ],
)
def test_status_of_the_front_becomes_exit_status_reason_and_hint(
    address: str, tmp_path: Path, status: int, exit_status: int, hint: str
) -> None:
    (tmp_path / "token").write_text("secret.of.mine\n")
    answers = Front(status=status, text="because I say so")
    with target(address, answers, port=15009):
        done = pipe(url(address, "22"), variables={"KRUN_ID_TOKEN_FILE": str(tmp_path / "token")})
    assert (done.returncode, done.stdout) == (exit_status, b"")
    error, told = done.stderr.decode().splitlines()
    assert error == f"hbone: error: no tunnel to {url(address, '22')}: status {status}, because I say so"
    assert told.startswith("hint: ")
    assert hint in told
    (request,) = answers.requests
    assert request["authorization"] == "Bearer secret.of.mine"
    assert request[":authority"] == f"{address}:15009"
    assert "secret" not in done.stderr.decode()


def test_token_command_gets_the_audience(address: str) -> None:
    answers = Front(status=403, text="")
    with target(address, answers, port=15009):
        pipe("--token-command", "sh -c 'echo {audience} | tr : .'", url(address))
    assert answers.requests[0]["authorization"] == f"Bearer https.//{address}"


def test_token_over_plain_http_off_loopback_is_refused_before_dialling() -> None:
    # 192.0.2.1 (RFC 5737) answers nobody: to dial it would take until the deadline, with another status.
    for flags in (["http://192.0.2.1:15009/_hbone/22"], ["--connect-to", "192.0.2.1:80", "http://127.0.0.1/_hbone/22"]):
        done = pipe("--token-command", "printf t", *flags)
        assert done.returncode == 78
        assert b"192.0.2.1" in done.stderr
        assert b"https" in done.stderr


def test_bad_token_file_is_named_and_not_shown(address: str, tmp_path: Path) -> None:
    bad = tmp_path / "token"
    bad.write_text("not a token")
    for file in (bad, tmp_path / "missing"):
        done = pipe("--token-file", str(file), url(address))
        assert done.returncode == 78
        assert str(file) in done.stderr.decode()
        assert b"not a token" not in done.stderr


def test_nobody_listening_at_the_server_is_69_and_names_it(address: str) -> None:
    done = pipe(url(address))
    assert done.returncode == 69
    assert f"{address}:15009: Connection refused" in done.stderr.decode()
    assert b"hint: " in done.stderr


def test_server_that_speaks_no_tls_or_no_http_2_is_69(address: str, authority: Authority, tmp_path: Path) -> None:
    with target(address, greet, port=15009):
        assert pipe(f"https://{address}:15009/_hbone/22").returncode == 69
        assert pipe(url(address)).returncode == 69


@pytest.mark.parametrize("text", ["b.example", "ftp://b.example/_hbone/22", "https://b.example/x", "b.example:0"])
def test_what_names_no_tunnel_is_a_usage_error(text: str) -> None:
    done = pipe(text)
    assert (done.returncode, done.stdout) == (2, b"")


def test_reader_of_stdout_that_goes_away_ends_hbone_without_a_traceback(address: str) -> None:
    with target(address, echo), server(address) as hboned:
        reader, writer = os.pipe()
        os.close(reader)
        with open(writer, "wb") as stdout:  # noqa: PTH123 - a descriptor, not a path
            done = subprocess.run(
                ["hbone", url(address)],
                input=b"x" * 100000,
                stdout=stdout,
                stderr=subprocess.PIPE,
                env=processes.environment(),
                timeout=30,
                check=False,
            )
        assert done.returncode == 69
        assert b"Traceback" not in done.stderr
        hboned.wait_for("tunnel closed")


def test_client_dials_again_when_its_server_died(address: str) -> None:
    with target(address, echo), contextlib.ExitStack() as stack:
        old = stack.enter_context(server(address))
        running, port = stack.enter_context(forward(address, url(address)))
        with connect(address, port) as client:
            client.sendall(b"1")
            assert client.recv(1) == b"1"
            old.signal(signal.SIGKILL)
            with contextlib.suppress(ConnectionResetError):
                assert client.recv(1) == b""
        old.wait()
        running.wait_for("tunnel closed")
        stack.enter_context(server(address))
        with connect(address, port) as client:
            client.sendall(b"2")
            assert client.recv(1) == b"2"


def test_forward_says_in_one_line_why_there_is_no_tunnel_and_goes_on(address: str) -> None:
    with server(address), forward(address, url(address)) as (running, port):
        for _ in range(2):
            # The reset may come while the client still connects.
            with contextlib.suppress(ConnectionResetError), connect(address, port) as client:
                assert client.recv(1) == b""
        processes.wait_until(lambda: len(lines(running, "tunnel refused")) == 2, what="two lines")
        assert "503" in str(lines(running, "tunnel refused")[0]["reason"])
        assert running.terminate() == 0


def test_plain_form_imports_nothing_that_takes_long(address: str) -> None:
    """ssh waits for it each time; a list holds what timings cannot."""
    env = processes.environment(PYTHONPROFILEIMPORTTIME="1")
    with target(address, greet), server(address):
        done = processes.run(["hbone", url(address)], env=env)
    assert (done.returncode, done.stdout) == (0, "hello\n")
    # Before that, the interpreter and what is installed in it import what they need.
    lines = done.stderr.splitlines()
    first = next(number for number, line in enumerate(lines) if line.endswith(" hbone"))
    imported = {line.rpartition("|")[2].strip() for line in lines[first:]}
    assert {"hbone.pipe", "hbone.tunnel", "_socket"} <= imported
    ours = {"client", "command", "link", "options", "pipe_tls", "pool", "refusal", "session", "tokens", "unreachable"}
    others = {"asyncio", "click", "collections", "dataclasses", "enum", "functools", "hpack", "logging", "re", "socket"}
    others |= {"_ssl", "ssl", "subprocess", "threading", "typing"}
    assert not imported & ({f"hbone.{name}" for name in ours} | others)


@pytest.mark.parametrize(
    "name", ["KRUN_ID_TOKEN_FILE", "KRUN_ID_TOKEN_COMMAND", "KRUN_CA_FILE", "KRUN_CONNECT_TO", "KRUN_LOG_LEVEL"]
)
@pytest.mark.parametrize("value", ["", "/does/not/exist", "127.0.0.1:1"])
def test_plain_form_says_what_the_form_with_flags_says(address: str, name: str, value: str) -> None:
    env = processes.environment(**{name: value})
    target_url = url(address).replace("http:", "https:")
    plain = processes.run(["hbone", target_url], env=env)
    flags = processes.run(["hbone", "--", target_url], env=env)
    assert (plain.returncode, plain.stdout, plain.stderr) == (flags.returncode, flags.stdout, flags.stderr)
    assert plain.returncode in (2, 69, 78)
