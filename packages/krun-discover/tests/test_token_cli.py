"""The real krun-token: what is on stdout and in files, statuses, and what it does not do."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from krun_testbed import components, processes
from krun_testbed.addresses import free_port
from krun_testbed.google_api import GoogleApi
from krun_testbed.metadata import MetadataServer

pytestmark = pytest.mark.loopback

CANARY = "ya29.canary-7f3a"
AUDIENCE = "https://web-1.us-central1.run.app"


@pytest.fixture
def server(address: str) -> MetadataServer:
    return MetadataServer(address=address, token=lambda scopes: CANARY, identity=lambda audience: f"a.b.{CANARY}")


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    """A machine without a home that matters, and where nobody is logged in."""
    return processes.environment(HOME=str(tmp_path), PATH=str(Path(sys.executable).parent))


def mint(*arguments: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return processes.run([components.command("krun-token"), *arguments], env=env)


def at(server: MetadataServer) -> dict[str, str]:
    return {"GCE_METADATA_HOST": server.address, "NO_GCE_CHECK": ""}


def fails(status: int, *arguments: str, env: dict[str, str]) -> str:
    """Run a command that must fail: nothing on stdout, one line and a hint on stderr, which are returned."""
    done = mint(*arguments, env=env)
    assert (done.returncode, done.stdout) == (status, ""), done.stderr
    assert "Traceback" not in done.stderr
    line, hint = done.stderr.splitlines()[-2:]
    assert line.startswith("krun-token: error: ")
    assert hint.startswith("hint: ")
    return done.stderr


def test_a_token_and_a_newline_are_all_that_is_printed(server: MetadataServer, env: dict[str, str]) -> None:
    with server:
        env |= at(server)
        done = mint("access", env=env)
        assert (done.returncode, done.stdout, done.stderr) == (0, f"{CANARY}\n", "")
        assert server.requests[-1].endswith("token?scopes=https://www.googleapis.com/auth/cloud-platform")
        mint("access", "--scope", "https://a", "--scope", "https://b", env=env)
        assert server.requests[-1].endswith("token?scopes=https://a,https://b")
        done = mint("id", "--audience", AUDIENCE, env=env)
        assert (done.returncode, done.stdout, done.stderr) == (0, f"a.b.{CANARY}\n", "")
        assert len(server.requests) == 3


def test_a_file_holds_the_token_alone_and_stdout_is_empty(
    server: MetadataServer, env: dict[str, str], tmp_path: Path
) -> None:
    with server:
        env |= at(server)
        file = tmp_path / "token"
        done = mint("access", "--to", str(file), env=env)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        assert file.read_text() == CANARY
        assert file.stat().st_mode & 0o777 == 0o600
        owner = f"{os.geteuid()}:{os.getegid()}"
        done = mint("id", "--audience", "b", "--to", str(file), "--mode", "0640", "--owner", owner, env=env)
        assert done.returncode == 0
        assert file.read_text() == f"a.b.{CANARY}"
        assert file.stat().st_mode & 0o777 == 0o640


def test_explain_tells_whose_token_it_is_and_prints_none(
    server: MetadataServer, env: dict[str, str], tmp_path: Path
) -> None:
    with server:
        done = mint("access", "--explain", env={**env, **at(server)})
        assert done.returncode == 0
        assert done.stdout.startswith("token from metadata server, expires 20")
        assert "  GOOGLE_APPLICATION_CREDENTIALS: not set\n" in done.stdout
        assert done.stdout.endswith("  metadata server: used\n")
        assert "canary" not in done.stdout + done.stderr
    done = mint("access", "--explain", env=env)
    assert done.returncode == 78
    assert done.stdout.startswith("no token\n")
    assert "gcloud's login: there is no command gcloud" in done.stdout


def test_flags_that_do_not_go_together_end_with_2(env: dict[str, str], tmp_path: Path) -> None:
    file = str(tmp_path / "token")
    for arguments in (
        ["--watch"],
        ["--owner", "0"],
        ["--mode", "0600"],
        ["--explain", "--to", file],
        ["--to", file, "--owner", "root"],
        ["--to", file, "--mode", "rw"],
        ["--timeout", "0"],
        ["--timeout", "nan"],
        ["--no-such"],
        ["argument"],
    ):
        fails(2, "access", *arguments, env=env)
    fails(2, "id", env=env)
    fails(2, "id", "--audience", "", env=env)
    fails(2, "id", "--audience", "a b", env=env)
    fails(2, "access", "--scope", "", env=env)
    fails(2, "kubernetes", env=env)
    fails(2, "kubernetes", "--audience", "a", "--expiration", "599", env=env)
    fails(2, "no-such", env=env)
    fails(2, "access", env={**env, "KRUN_LOG_LEVEL": "loud"})


def test_without_credentials_or_a_cluster_it_ends_with_78(env: dict[str, str]) -> None:
    assert "no Google credentials here" in fails(78, "access", env=env)
    assert "no cluster is known here" in fails(78, "kubernetes", "--audience", "istio-ca", env=env)
    assert "is not a regular file" in fails(78, "access", "--to", "/dev/null", env=env)
    override = {"CLOUDSDK_API_ENDPOINT_OVERRIDES_STS": "http://sts.example/"}
    assert "plain http" in fails(78, "access", env={**env, **override})


def test_a_metadata_server_that_is_not_there_is_69_and_one_that_hangs_75(address: str, env: dict[str, str]) -> None:
    nowhere = {"GCE_METADATA_HOST": f"{address}:{free_port(address=address)}", "NO_GCE_CHECK": ""}
    assert "refused" in fails(69, "access", env={**env, **nowhere})
    with socket.create_server((address, 0), backlog=16) as listener:
        hanging = {"GCE_METADATA_HOST": f"{address}:{listener.getsockname()[1]}", "NO_GCE_CHECK": ""}
        begun = time.monotonic()
        assert "no answer" in fails(75, "access", "--timeout", "0.5", env={**env, **hanging})
        assert time.monotonic() - begun < 10


def test_an_account_that_is_gone_is_77(server: MetadataServer, env: dict[str, str]) -> None:
    with server:
        server.failures = [403]
        assert "refused (HTTP 403)" in fails(77, "access", env={**env, **at(server)})


def test_a_file_that_may_not_be_written_is_77_and_one_in_no_folder_78(
    server: MetadataServer, env: dict[str, str], tmp_path: Path
) -> None:
    with server:
        env |= at(server)
        assert "/sys/token cannot be written" in fails(77, "access", "--to", "/sys/token", env=env)
        assert "mkdir -p" in fails(78, "access", "--to", str(tmp_path / "no" / "token"), env=env)


def test_a_stdout_that_cannot_be_written_is_an_error_and_no_traceback(
    server: MetadataServer, env: dict[str, str]
) -> None:
    with server:
        argv = ["/bin/sh", "-c", "krun-token access >/dev/full"]
        done = processes.run(argv, env={**env, **at(server)})
    assert done.returncode == 69
    assert "stdout cannot be written" in done.stderr
    assert "canary" not in done.stderr


def test_a_token_of_a_file_is_kept_unless_that_is_switched_off(env: dict[str, str], tmp_path: Path) -> None:
    # gcloud's, as its tokens are kept, and its runs can be counted.
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "gcloud").write_text('#!/bin/sh\necho x >>"$HOME/runs"\necho ya29.canary\n')
    (folder / "gcloud").chmod(0o755)
    env["PATH"] += f":{folder}:{os.defpath}"
    runs = tmp_path / "runs"
    for arguments in ([], [], ["--explain"], ["--to", str(tmp_path / "token")]):
        assert mint("access", *arguments, env=env).returncode == 0
    assert runs.read_text() == "x\n" * 3
    assert (tmp_path / ".cache" / "krun" / "tokens").stat().st_mode & 0o777 == 0o700
    mint("access", env={**env, "KRUN_TOKEN_CACHE": "off"})
    mint("access", env={**env, "KRUN_TOKEN_CACHE": str(tmp_path / "other")})
    mint("access", env={**env, "KRUN_TOKEN_CACHE": str(tmp_path / "other")})
    assert runs.read_text() == "x\n" * 5


@pytest.mark.parametrize("command", ["access", "id", "kubernetes"])
def test_help_has_an_example_and_fits_a_terminal(command: str, env: dict[str, str]) -> None:
    text = mint(command, "--help", env=env).stdout
    assert "Example:" in text
    assert max(len(line) for line in text.splitlines()) <= 80
    text = mint("--help", env=env).stdout
    assert f"  {command} " in text
    assert max(len(line) for line in text.splitlines()) <= 80
    assert re.fullmatch(r"krun-token \d+\.\d+\.\d+\n", mint("--version", env=env).stdout)


def imported(*arguments: str, env: dict[str, str]) -> set[str]:
    argv = [sys.executable, "-X", "importtime", components.command("krun-token"), *arguments]
    done = processes.run(argv, env=env)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    return {line.rpartition("|")[2].strip() for line in lines}


HEAVY = {"google.auth", "requests", "urllib3", "kubernetes", "asyncio", "yaml", "urllib.request", "cryptography"}


def test_a_metadata_servers_token_needs_no_library_of_googles(server: MetadataServer, env: dict[str, str]) -> None:
    with server:
        found = imported("access", env={**env, **at(server)})
        assert found & (HEAVY | {"subprocess", "krun_discover.kube", "krun_discover.kubeconfig"}) == set()
        assert "krun_discover.google_metadata" in found


def test_a_file_of_credentials_needs_google_auth_and_none_of_its_transports(
    env: dict[str, str], tmp_path: Path, google: GoogleApi
) -> None:
    (tmp_path / "login.json").write_text(json.dumps(google.oauth2.login("me@example.com")))
    env |= {"GOOGLE_APPLICATION_CREDENTIALS": str(tmp_path / "login.json"), **google.environment}
    found = imported("access", env=env)
    assert "google.auth" in found
    assert found & {"requests", "urllib3", "asyncio", "urllib.request", "kubernetes", "yaml"} == {"asyncio"}
