"""The tunnel's commands where there is no epoll and no splice, as on macOS: the same bytes, the same ends."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

import pytest

from krun_testbed import other_systems, processes
from krun_testbed.certificates import Authority
from krun_testbed.tunnels import connect, digest_after_end, lines, read_all, server, target, tls_flags, url

pytestmark = pytest.mark.loopback

DATA = os.urandom(3 * 1024 * 1024)
ANSWER = hashlib.sha256(DATA).hexdigest().encode() + DATA
WITHOUT_POLL = (*other_systems.LINUX, other_systems.POLL)


def piped(*argv: str, without: tuple[str, ...] = other_systems.LINUX, **variables: str) -> bytes:
    """hbone on stdin and stdout, which must work."""
    done = subprocess.run(
        other_systems.command("hbone.cli", *argv, without=without),
        input=DATA,
        capture_output=True,
        timeout=60,
        env=processes.environment(**variables),
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    return done.stdout


@pytest.mark.parametrize("without", [other_systems.LINUX, WITHOUT_POLL], ids=["poll", "select"])
def test_stdin_and_stdout_without_tls(address: str, without: tuple[str, ...]) -> None:
    with target(address, digest_after_end), server(address):
        assert piped(url(address), without=without) == ANSWER


@pytest.mark.parametrize("without", [other_systems.LINUX, WITHOUT_POLL], ids=["poll", "select"])
def test_stdin_and_stdout_with_tls(
    address: str, authority: Authority, tmp_path: Path, without: tuple[str, ...]
) -> None:
    flags = tls_flags(authority, tmp_path, "b.example")
    variables = {"KRUN_CA_FILE": str(tmp_path / "root.pem"), "KRUN_CONNECT_TO": f"{address}:15009"}
    with target(address, digest_after_end), server(address, *flags):
        assert piped("b.example:15003", without=without, **variables) == ANSWER


@pytest.mark.parametrize("is_tls", [False, True], ids=["h2c", "tls"])
def test_forwards_and_their_server(address: str, authority: Authority, tmp_path: Path, *, is_tls: bool) -> None:
    secure = tls_flags(authority, tmp_path, address) if is_tls else ()
    tunnel = url(address).replace("http:", "https:" if is_tls else "http:")
    trust = ("--ca-file", str(tmp_path / "root.pem")) if is_tls else ()
    env = processes.environment(KRUN_LOOPBACK=address, KRUN_LOG_FORMAT="json")
    ours = other_systems.command("hbone.server_cli", "--port", "15009", *secure)
    with target(address, digest_after_end), processes.start(ours, env=env) as hboned:
        hboned.wait_for('"ready"')
        with processes.start(
            other_systems.command("hbone.cli", "-L", f"{address}:0", *trust, tunnel), env=env
        ) as running:
            port = int(running.wait_for(r'"ready".*"address": "[^"]*:(\d+)"')[1])
            for _ in range(3):
                with connect(address, port) as client:
                    client.sendall(DATA)
                    client.shutdown(1)
                    assert read_all(client) == ANSWER
            assert running.terminate() == 0
        assert hboned.terminate() == 0
    assert [line["reason"] for line in lines(hboned, "tunnel closed")] == ["ended"] * 3


def test_what_is_taken_away_is_not_there() -> None:
    code = other_systems.command("krun_testbed.other_systems", without=WITHOUT_POLL)[2].replace("main()", "")
    shown = "print(*sorted({'epoll', 'poll', 'EPOLLIN'} & set(dir(select))), hasattr(os, 'splice'))"
    ours = code.replace("from krun_testbed.other_systems import main", shown)
    assert processes.run([*other_systems.command("x")[:2], ours]).stdout == "False\n"
