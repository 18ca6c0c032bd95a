"""Whatever a machine's credentials are, krun-token prints the token on stdout and no secret anywhere else."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from krun_testbed import google_api_faults, processes
from krun_testbed.google_api import GoogleApi
from krun_testbed.google_api_metadata import metadata_server

pytestmark = pytest.mark.loopback

ROBOT = "robot@demo-project.iam.gserviceaccount.com"
TARGET = "target@demo-project.iam.gserviceaccount.com"
POOL = "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/pool/providers/there"
SUBJECT = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJjYW5hcnkifQ.canary-subject"
PRINCIPAL = "principal://pool/me"
AUDIENCE = "https://web-1.us-central1.run.app"


@dataclass
class Machine:
    """What a source is set up on; ``secrets`` are those that it put there."""

    google: GoogleApi
    home: Path
    env: dict[str, str]
    secrets: set[str]

    def file(self, content: dict[str, Any]) -> None:
        path = self.home / "credentials.json"
        path.write_text(json.dumps(content))
        self.env["GOOGLE_APPLICATION_CREDENTIALS"] = str(path)

    def url(self, server: str, path: str) -> str:
        return self.google.servers[server].url + path


def key(machine: Machine) -> None:
    uri = machine.url("oauth2", "token")
    content = machine.google.oauth2.service_account(ROBOT, project="demo-project", token_uri=uri)
    machine.secrets |= set(content["private_key"].splitlines()[1:-1])
    machine.file(dict(content))


def login(machine: Machine) -> dict[str, str]:
    content = machine.google.oauth2.login("me@example.com")
    machine.secrets |= {content["refresh_token"], content["client_secret"]}
    machine.file(dict(content))
    return content


def impersonated(machine: Machine) -> None:
    machine.file(
        {
            "type": "impersonated_service_account",
            "source_credentials": login(machine),
            "service_account_impersonation_url": account_url(machine),
        }
    )


def external(machine: Machine) -> None:
    (machine.home / "subject").write_text(SUBJECT)
    machine.secrets.add(SUBJECT)
    machine.file(
        {
            "type": "external_account",
            "audience": POOL,
            "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
            "token_url": machine.url("sts", "v1/token"),
            "credential_source": {"file": str(machine.home / "subject")},
            "service_account_impersonation_url": account_url(machine),
        }
    )


def account_url(machine: Machine) -> str:
    return machine.url("iamcredentials", f"v1/projects/-/serviceAccounts/{TARGET}:generateAccessToken")


def gcloud(machine: Machine) -> None:
    folder = machine.home / "bin"
    folder.mkdir()
    token = machine.google.accounts.access_token("me@example.com")
    (folder / "gcloud").write_text(f"#!/bin/sh\necho 'a warning' >&2\necho {token}\n")
    (folder / "gcloud").chmod(0o755)
    machine.env["PATH"] = f"{folder}:{machine.env['PATH']}"
    machine.env["CLOUDSDK_AUTH_IMPERSONATE_SERVICE_ACCOUNT"] = TARGET


SOURCES: dict[str, Callable[[Machine], object]] = {
    "key": key,
    "impersonated": impersonated,
    "external": external,
    "gcloud": gcloud,
    "metadata": lambda machine: None,
}


@pytest.fixture
def machine(google: GoogleApi, tmp_path: Path) -> Machine:
    home = tmp_path / "home"
    home.mkdir()
    google.sts.providers[POOL] = lambda token: PRINCIPAL if token == SUBJECT else None
    google.accounts.actors[TARGET] = {PRINCIPAL, "me@example.com", ROBOT}
    env = processes.environment(HOME=str(home), KRUN_LOG_LEVEL="debug", KRUN_LOG_FORMAT="json", **google.environment)
    return Machine(google=google, home=home, env=env, secrets=set())


@pytest.mark.parametrize("source", sorted(SOURCES))
def test_no_secret_of_a_source_is_said(machine: Machine, source: str, address: str) -> None:
    google = machine.google
    SOURCES[source](machine)
    said = ""
    with metadata_server(google.accounts, address=address) as server:
        if source == "metadata":
            machine.env |= {"GCE_METADATA_HOST": server.address, "NO_GCE_CHECK": ""}
        for arguments in (["access"], ["id", "--audience", AUDIENCE]):
            done = processes.run(["krun-token", *arguments], env=machine.env)
            assert done.returncode == 0, done.stderr
            token = done.stdout.strip()
            assert done.stdout == f"{token}\n"
            machine.secrets |= {token, *token.split(".")[2:]}
            said += done.stderr
            done = processes.run(["krun-token", *arguments, "--explain"], env=machine.env)
            assert done.returncode == 0
            said += done.stdout + done.stderr
        for fault in faults(machine):
            for running in google.servers.values():
                running.faults[:] = [fault]
            server.failures[:] = [500, 500]
            for arguments in (["access"], ["id", "--audience", AUDIENCE]):
                off = {"KRUN_TOKEN_CACHE": "off"}
                done = processes.run(["krun-token", *arguments, "--explain", "--timeout", "3"], env=machine.env | off)
                assert done.returncode in (69, 75, 77, 78), done.stderr
                assert "Traceback" not in done.stderr
                said += done.stdout + done.stderr
    secrets = machine.secrets | set(google.accounts.grants)
    assert [secret for secret in secrets if secret in said] == []


def faults(machine: Machine) -> list[google_api_faults.Fault]:
    """A service that repeats what it was sent, one that says nothing of sense, and one that gives a broken token."""
    echo = " ".join(secret for secret in machine.secrets if secret.startswith(("ya29.", "eyJ", "1//")))
    broken = json.dumps({"access_token": "canary broken", "accessToken": "canary broken", "token": "canary broken"})
    machine.secrets.add("canary broken")
    return [
        google_api_faults.status(400, f"no {echo[:200]}"),
        google_api_faults.malformed(),
        google_api_faults.malformed(broken.encode()),
    ]


def test_what_is_kept_is_readable_by_its_owner_only(machine: Machine) -> None:
    key(machine)
    assert processes.run(["krun-token", "access"], env=machine.env).returncode == 0
    kept = [path for path in (machine.home / ".cache").rglob("*") if path.is_file()]
    assert len(kept) == 1
    assert kept[0].stat().st_mode & 0o777 == 0o600
    assert kept[0].stat().st_uid == os.geteuid()
