"""The real command: what it asks, where it writes, how it fails, and what it never shows."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from krun_testbed import components, processes
from krun_testbed.certificates import Authority
from krun_testbed.kubernetes_kubeconfig import by_token, kubeconfig
from krun_testbed.web_peers import WebPeer, answer, server_tls, web_peer

pytestmark = pytest.mark.loopback

CANARY = "canary-6a1f-0123456789"
VALUES = {"user": b"me", "password": CANARY.encode(), "bytes": b"\0\xff"}


def secret(values: dict[str, bytes]) -> bytes:
    data = {name: base64.b64encode(value).decode() for name, value in values.items()}
    return answer(200, json.dumps({"kind": "Secret", "data": data}).encode())


def status(code: int, message: str, kind: str = "secrets") -> bytes:
    found = {"kind": "Status", "message": message, "details": {"kind": kind}}
    return answer(code, json.dumps(found).encode())


class Place:
    """A folder with a kubeconfig that leads to a server with these answers."""

    def __init__(self, *, folder: Path, peer: WebPeer) -> None:
        self.folder = folder
        self.peer = peer
        self.to = folder / "secret"

    def run(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        """Run the command; nothing secret is in what it says."""
        argv = [components.command("krun-secret"), *arguments]
        environment = processes.environment(KUBECONFIG=str(self.folder / "config"), HOME=str(self.folder), **env)
        done = processes.run(argv, env=environment)
        assert CANARY not in done.stdout + done.stderr
        assert done.stdout == "" or "--help" in arguments or "--version" in arguments
        return done

    def fails(self, code: int, *arguments: str, **env: str) -> str:
        """The last lines of a run that fails so."""
        done = self.run("db", "--to", str(self.to), *arguments, **env)
        assert done.returncode == code, done.stderr
        assert "krun-secret: error: " in done.stderr
        return done.stderr

    def asked(self) -> str:
        return self.peer.requests[-1].decode().partition(" HTTP")[0]


@contextlib.contextmanager
def place(folder: Path, address: str, *answers: bytes, **config: Any) -> Iterator[Place]:
    authority = Authority()
    tls = server_tls(authority.server(hosts=(address,)), str(folder))
    with web_peer(address, *answers, tls=tls) as peer:
        text = kubeconfig(server=f"https://{address}:{peer.port}", root=authority.root, user=by_token(CANARY), **config)
        (folder / "config").write_text(text, encoding="utf-8")
        yield Place(folder=folder, peer=peer)


def seen(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.startswith("..")}


def test_a_secret_becomes_files_and_nothing_is_printed(tmp_path: Path, address: str) -> None:
    with place(tmp_path, address, secret(VALUES)) as at:
        done = at.run("db", "--to", str(at.to), "--namespace", "demo", "--log-format", "text")
        assert (done.returncode, done.stderr) == (0, 'krun-secret: secret written source="secret demo/db" count=3\n')
        assert at.asked() == "GET /api/v1/namespaces/demo/secrets/db"
        assert seen(at.to) == VALUES
        again = at.run("db", "--to", str(at.to), "--namespace", "demo")
        assert "secret has not changed" in again.stderr
        assert seen(at.to) == VALUES


@pytest.mark.parametrize(
    ("arguments", "env", "namespace"),
    [
        ((), {}, "by-context"),
        ((), {"WORKLOAD_NAMESPACE": "by-variable"}, "by-variable"),
        (("--namespace", "by-flag"), {"WORKLOAD_NAMESPACE": "by-variable"}, "by-flag"),
    ],
)
def test_the_namespace_is_the_flags_the_variables_or_the_contexts(
    tmp_path: Path, address: str, arguments: tuple[str, ...], env: dict[str, str], namespace: str
) -> None:
    with place(tmp_path, address, secret(VALUES), namespace="by-context") as at:
        assert at.run("db", "--to", str(at.to), *arguments, **env).returncode == 0
        assert at.asked() == f"GET /api/v1/namespaces/{namespace}/secrets/db"


def test_without_any_it_is_default(tmp_path: Path, address: str) -> None:
    with place(tmp_path, address, secret(VALUES)) as at:
        assert at.run("db", "--to", str(at.to)).returncode == 0
        assert at.asked() == "GET /api/v1/namespaces/default/secrets/db"


def test_an_owner_is_given_the_files_or_the_refusal_is_told(tmp_path: Path, address: str) -> None:
    with place(tmp_path, address, secret(VALUES)) as at:
        if os.geteuid() == 0:
            assert at.run("db", "--to", str(at.to), "--owner", "1234:5678").returncode == 0
            assert ((at.to / "user").stat().st_uid, (at.to / "user").stat().st_gid) == (1234, 5678)
        else:
            assert "cannot be written: Operation not permitted" in at.fails(77, "--owner", "0")


def test_a_context_is_chosen_by_its_name(tmp_path: Path, address: str) -> None:
    with place(tmp_path, address, secret(VALUES), name="staging") as at:
        assert at.run("db", "--to", str(at.to), "--context", "staging").returncode == 0
        assert "hint: known contexts: staging" in at.fails(78, "--context", "prod")


def test_a_failure_leaves_the_files_as_they_were(tmp_path: Path, address: str) -> None:
    gone = status(404, "not found")
    refused = status(
        403, 'secrets "db" is forbidden: User "me" cannot get resource "secrets" in the namespace "default"'
    )
    with place(tmp_path, address, secret(VALUES), gone, refused, secret({"../x": CANARY.encode()})) as at:
        at.run("db", "--to", str(at.to))
        said = at.fails(78)
        assert "there is no secret db in namespace default" in said
        assert "kubectl create secret generic db --namespace=default" in said
        said = at.fails(77)
        assert "me may not get secrets db in namespace default" in said
        assert "kubectl create role krun-secrets-db --verb=get --resource=secrets --resource-name=db" in said
        assert "cannot be a file's name" in at.fails(65)
        assert seen(at.to) == VALUES


def test_a_failed_run_makes_no_folder(tmp_path: Path, address: str) -> None:
    with place(tmp_path, address, status(404, "not found")) as at:
        at.fails(78)
        assert not at.to.exists()


def test_a_server_that_is_gone_is_unreachable_and_time_is_a_deadline(tmp_path: Path, address: str) -> None:
    with place(tmp_path, address, secret(VALUES)) as at:
        pass
    assert "connection refused" in at.fails(69, "--timeout", "1")


def test_without_any_cluster_both_places_are_named(tmp_path: Path, address: str) -> None:
    with place(tmp_path, address, secret(VALUES)) as at:
        (tmp_path / "config").unlink()
        done = at.run("db", "--to", str(at.to), KUBERNETES_SERVICE_HOST="")
        assert done.returncode == 78
        assert "no such file" in done.stderr
    env = processes.environment(HOME=str(tmp_path))
    done = processes.run([components.command("krun-secret"), "db", "--to", str(tmp_path / "x")], env=env)
    assert done.returncode == 78
    assert "no cluster is known here: KUBECONFIG is not set" in done.stderr
    assert "KUBERNETES_SERVICE_HOST is not set" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [(), ("db",), ("--to", "x"), ("db", "--to", "x", "--timeout", "nan"), ("db", "--to", "x", "--owner", "me")],
)
def test_what_is_missing_or_wrong_on_the_command_line_is_a_usage_error(
    tmp_path: Path, address: str, arguments: tuple[str, ...]
) -> None:
    with place(tmp_path, address) as at:
        assert at.run(*arguments).returncode == 2


def test_help_has_examples_and_the_version_is_the_packages(tmp_path: Path, address: str) -> None:
    with place(tmp_path, address) as at:
        assert "Examples:\n    krun-secret db-password --to /run/secrets/db" in at.run("--help").stdout
        assert at.run("--version").stdout.startswith("krun-secret ")


def test_it_is_not_slowed_down_by_what_it_does_not_need(tmp_path: Path) -> None:
    env = processes.environment(HOME=str(tmp_path))
    code = "import sys, krun_discover.secret_cli; print(*sys.modules)"
    argv = [components.command("python"), "-c", code]
    loaded = set(processes.run(argv, env=env).stdout.split())
    heavy = {
        "asyncio",
        "yaml",
        "requests",
        "urllib3",
        "kubernetes",
        "google.auth",
        "ssl",
        "http.client",
        "cryptography",
    }
    assert loaded & heavy == set()
