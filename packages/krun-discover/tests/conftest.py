"""What tests of Google's tokens share: the APIs on loopback, a machine, its metadata server."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from krun_discover.google_tokens import GoogleTokens
from krun_discover.token_cache import TokenCache
from krun_discover.web import Web
from krun_testbed import google_api
from krun_testbed.addresses import loopback
from krun_testbed.certificates import Authority
from krun_testbed.google_api import GoogleApi
from krun_testbed.google_api_metadata import metadata_server
from krun_testbed.google_machine import Machine
from krun_testbed.metadata import MetadataServer


@pytest.fixture(scope="module")
def apis(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[GoogleApi]:
    with google_api.running(
        address=loopback(), directory=tmp_path_factory.mktemp("google"), authority=authority
    ) as running:
        yield running


def _tokens(*, environ: dict[str, str], seconds: float, cache: TokenCache | None) -> GoogleTokens:
    web = Web(deadline=time.monotonic() + seconds, environ=environ)
    return GoogleTokens(web=web, environ=environ, cache=cache)


@pytest.fixture
def machine(apis: GoogleApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    monkeypatch.setenv("SSL_CERT_FILE", str(apis.roots))
    apis.requests.clear()
    apis.accounts.actors.clear()
    apis.sts.providers.clear()
    environ = {"HOME": str(tmp_path), "PATH": str(tmp_path / "bin"), "NO_GCE_CHECK": "true", **apis.environment}
    yield Machine(apis=apis, home=tmp_path, environ=environ, make=_tokens)
    for server in apis.servers.values():
        server.faults.clear()


@pytest.fixture
def metadata(machine: Machine, address: str) -> Iterator[MetadataServer]:
    with metadata_server(machine.apis.accounts, address=address) as server:
        machine.environ |= {"GCE_METADATA_HOST": server.address, "NO_GCE_CHECK": ""}
        yield server
