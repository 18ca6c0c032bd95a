"""Google's tokens by a file of credentials of each kind, and by federation, against Google's endpoints on loopback."""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from krun_discover import token_claims
from krun_discover.errors import Denied, Failure, Misconfigured, Unreachable
from krun_discover.issued import Token
from krun_testbed import google_api_faults
from krun_testbed.google_machine import POOL, ROBOT, SUBJECT, Machine
from krun_testbed.web_peers import answer, web_peer

pytestmark = pytest.mark.loopback

AUDIENCE = "https://web-123.us-central1.run.app"
TARGET = "target@demo-project.iam.gserviceaccount.com"
MIDDLE = "middle@demo-project.iam.gserviceaccount.com"
GKE = "identitynamespace:demo-project.svc.id.goog:https://issuer.example"


def claims(token: Token) -> Mapping[str, object]:
    return token_claims.claims(token.value)


def holder(machine: Machine, token: Token) -> tuple[str, str]:
    grant = machine.apis.accounts.grants[token.value]
    return grant.principal, grant.way


def lives_an_hour(token: Token) -> bool:
    return 3500 < token.expires - time.time() <= 3600


# --- files


def test_a_service_accounts_key_gives_both_kinds(machine: Machine) -> None:
    machine.use(machine.key())
    access = machine.google().access(["https://a"])
    assert holder(machine, access) == (ROBOT, "jwt")
    assert machine.apis.accounts.grants[access.value].scopes == ("https://a",)
    assert lives_an_hour(access)
    identity = machine.google().identity(AUDIENCE)
    assert (claims(identity)["aud"], claims(identity)["email"]) == (AUDIENCE, ROBOT)
    assert lives_an_hour(identity)
    assert len(machine.asked("oauth2")) == 2


def test_a_users_login_gives_access_and_no_id_token_of_a_chosen_audience(machine: Machine) -> None:
    machine.use(machine.apis.oauth2.login("me@example.com"))
    assert holder(machine, machine.google().access()) == ("me@example.com", "refresh")
    with pytest.raises(Misconfigured, match="no ID token of a chosen audience") as caught:
        machine.google().identity(AUDIENCE)
    assert "roles/iam.serviceAccountOpenIdTokenCreator" in caught.value.hint
    assert "CLOUDSDK_AUTH_IMPERSONATE_SERVICE_ACCOUNT" in caught.value.hint


def test_a_login_that_was_revoked_is_told_with_the_command_that_renews_it(machine: Machine) -> None:
    login = machine.apis.oauth2.login("me@example.com")
    del machine.apis.oauth2.logins[login["refresh_token"]]
    machine.use(login)
    with pytest.raises(Denied, match="expired or revoked") as caught:
        machine.google().access()
    assert caught.value.hint == "gcloud auth application-default login"


def test_what_a_file_names_of_another_issuer_and_is_not_there_is_told(machine: Machine) -> None:
    machine.use(machine.external(credential_source={"file": "/no/such/token"}))
    with pytest.raises(Misconfigured, match="'/no/such/token' was not found"):
        machine.google().access()
    machine.use(machine.external())
    with pytest.raises(Denied, match="invalid_target"):
        machine.google().access()


@pytest.mark.parametrize("fault", [google_api_faults.malformed(), google_api_faults.malformed(b"[]")])
def test_an_answer_that_is_none_is_told_for_every_kind_of_file(
    machine: Machine, fault: google_api_faults.Fault
) -> None:
    for name in ("oauth2", "sts"):
        machine.apis.servers[name].faults.append(fault)
    for content in (machine.key(), machine.apis.oauth2.login("me@example.com"), machine.external()):
        machine.use(content)
        with pytest.raises(Unreachable, match=r"something between us|not what a token service says"):
            machine.google().access()


@pytest.mark.parametrize("source", ["file", "json file", "url"])
def test_another_issuers_token_is_exchanged(machine: Machine, address: str, source: str) -> None:
    machine.apis.sts.providers[POOL] = lambda token: "principal://me" if token == SUBJECT else None
    form = {"type": "json", "subject_token_field_name": "id"}
    (machine.home / "subject.json").write_text(json.dumps({"id": SUBJECT}))
    with web_peer(address, answer(200, json.dumps({"id": SUBJECT}).encode())) as peer:
        sources: dict[str, Any] = {
            "file": {"file": str(machine.home / "subject")},
            "json file": {"file": str(machine.home / "subject.json"), "format": form},
            "url": {"url": f"http://{address}:{peer.port}/id", "format": form, "headers": {"X-From": "me"}},
        }
        machine.use(machine.external(credential_source=sources[source]))
        token = machine.google().access()
        assert bool(peer.requests) == (source == "url")
    assert holder(machine, token) == ("principal://me", "sts")
    assert lives_an_hour(token)


def test_another_issuers_token_over_plain_http_is_refused_before_it_is_asked_for(machine: Machine) -> None:
    machine.use(machine.external(credential_source={"url": "http://issuer.example/token"}))
    with pytest.raises(Misconfigured, match=r"issuer\.example over plain http"):
        machine.google().access()
    machine.use(machine.external(token_url="http://sts.example/v1/token"))
    with pytest.raises(Misconfigured, match=r"sts\.example over plain http"):
        machine.google().access()
    assert machine.apis.requests == []


def test_a_pool_without_a_service_account_has_no_id_tokens_and_one_with_it_has(machine: Machine) -> None:
    machine.apis.sts.providers[POOL] = lambda token: "principal://me"
    machine.apis.accounts.actors[TARGET] = {"principal://me"}
    machine.use(machine.external())
    with pytest.raises(Misconfigured, match="STS issues no ID tokens"):
        machine.google().identity(AUDIENCE)
    options = {"token_lifetime_seconds": 1200}
    impersonating = {"service_account_impersonation_url": machine.url_of(TARGET)}
    machine.use(machine.external(**impersonating, service_account_impersonation=options))
    token = machine.google().access(["https://a"])
    assert holder(machine, token) == (TARGET, "impersonation")
    assert 1100 < token.expires - time.time() <= 1200
    assert claims(machine.google().identity(AUDIENCE))["email"] == TARGET


def test_a_file_may_act_for_an_account_through_others(machine: Machine) -> None:
    machine.apis.accounts.actors |= {MIDDLE: {"me@example.com"}, TARGET: {MIDDLE}}
    content = {
        "type": "impersonated_service_account",
        "source_credentials": machine.apis.oauth2.login("me@example.com"),
        "service_account_impersonation_url": machine.url_of(TARGET),
        "delegates": [MIDDLE],
    }
    machine.use(content)
    assert holder(machine, machine.google().access()) == (TARGET, "impersonation")
    assert claims(machine.google().identity(AUDIENCE))["email"] == TARGET


def test_an_executable_is_run_only_where_that_is_allowed(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.apis.sts.providers[POOL] = lambda token: "principal://me" if token == SUBJECT else None
    script = machine.home / "source.sh"
    said = {"version": 1, "success": True, "token_type": "urn:ietf:params:oauth:token-type:jwt", "id_token": SUBJECT}
    script.write_text(f"#!/bin/sh\necho '{json.dumps(said)}'\n")
    script.chmod(0o755)
    source = {"executable": {"command": str(script), "timeout_millis": 10000}}
    machine.use(machine.external(credential_source=source))
    with pytest.raises(Failure, match="GOOGLE_EXTERNAL_ACCOUNT_ALLOW_EXECUTABLES"):
        machine.google().access()
    monkeypatch.setenv("GOOGLE_EXTERNAL_ACCOUNT_ALLOW_EXECUTABLES", "1")
    assert holder(machine, machine.google().access()) == ("principal://me", "sts")


BROKEN: list[tuple[str, str]] = [
    ("canary", "no JSON object"),
    ('["canary"]', "no JSON object"),
    ('{"canary": 1}', "the type is unknown"),
    ('{"type": "canary-with-a-dash"}', "the type is unknown"),
    ('{"type": "gdch_service_account"}', "the type is gdch_service_account"),
    ('{"type": "service_account", "private_key": "canary"}', "not a whole service_account"),
    ('{"type": "authorized_user", "refresh_token": "canary"}', "not a whole authorized_user"),
    ('{"type": "impersonated_service_account"}', "source_credentials are missing"),
    (
        '{"type": "authorized_user", "service_account_impersonation_url": "https://h/canary?"}',
        "service_account_impersonation_url is no account's URL",
    ),
    (
        '{"type": "authorized_user", "service_account_impersonation_url": "http://h.example/serviceAccounts/a@b"}',
        "over plain http",
    ),
    ('{"type": "external_account", "token_url": "canary"}', "is not a URL"),
    ("[" * 100_000, "no JSON object"),
]


@pytest.mark.parametrize(("content", "reason"), BROKEN)
def test_a_broken_file_is_named_with_its_fault_and_without_its_content(
    machine: Machine, content: str, reason: str
) -> None:
    path = machine.home / "file.json"
    path.write_text(content)
    del machine.environ["CLOUDSDK_API_ENDPOINT_OVERRIDES_IAMCREDENTIALS"]
    with pytest.raises(Misconfigured, match=reason) as caught:
        machine.google(GOOGLE_APPLICATION_CREDENTIALS=str(path)).access()
    assert str(path) in caught.value.message
    assert "canary" not in "".join(traceback.format_exception(caught.value)).replace("test_google", "")


def test_a_path_that_is_no_file_is_told(machine: Machine) -> None:
    for path in (machine.home, Path("/dev/zero"), Path("/no/such")):
        with pytest.raises(Misconfigured):
            machine.google(GOOGLE_APPLICATION_CREDENTIALS=str(path)).access()


# --- federation


def subject(text: str = SUBJECT) -> Token:
    return Token(value=text, expires=time.time() + 600, source="a test")


@pytest.mark.parametrize("audience", [GKE, POOL])
def test_a_kubernetes_token_is_exchanged_for_an_access_token(machine: Machine, audience: str) -> None:
    machine.apis.sts.providers[audience] = lambda token: "the principal" if token == SUBJECT else None
    token = machine.google().federated(subject, audience).access(["https://a"])
    assert holder(machine, token) == ("the principal", "sts")
    assert machine.apis.accounts.grants[token.value].scopes == ("https://a",)
    assert lives_an_hour(token)


def test_a_kubernetes_account_may_act_for_a_google_account(machine: Machine) -> None:
    machine.apis.sts.providers[GKE] = lambda token: "the principal"
    machine.apis.accounts.actors[TARGET] = {"the principal"}
    source = machine.google().federated(subject, GKE, impersonate=TARGET)
    assert claims(source.identity(AUDIENCE))["email"] == TARGET
    assert holder(machine, source.access(["https://a"])) == (TARGET, "impersonation")


@pytest.mark.parametrize(
    ("audience", "member"),
    [
        (GKE, "serviceAccount:demo-project.svc.id.goog[demo/web]"),
        (
            POOL,
            "principal://iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/pool"
            "/subject/system:serviceaccount:demo:web",
        ),
    ],
)
def test_a_kubernetes_account_that_may_not_is_named_as_iam_names_it(
    machine: Machine, audience: str, member: str
) -> None:
    machine.apis.sts.providers[audience] = lambda token: "the principal"
    with pytest.raises(Denied) as caught:
        machine.google().federated(subject, audience, impersonate=TARGET).identity(AUDIENCE)
    assert caught.value.hint.endswith(f"--role=roles/iam.workloadIdentityUser --member='{member}'")


def test_errors_of_federation_are_told_apart(machine: Machine) -> None:
    with pytest.raises(Misconfigured, match="invalid_target"):
        machine.google().federated(subject, GKE).access(["a"])
    machine.apis.sts.providers[GKE] = lambda token: None
    with pytest.raises(Denied, match="untrusted issuer") as caught:
        machine.google().federated(subject, GKE).access(["a"])
    assert "iss=me" in caught.value.hint
    with pytest.raises(Misconfigured, match="issues no ID tokens"):
        machine.google().federated(subject, GKE).identity(AUDIENCE)
    for audience in ("", "https://sts", "identitynamespace:", "identitynamespace:a", "identitynamespace::b"):
        with pytest.raises(Misconfigured, match="is not an audience"):
            machine.google().federated(subject, audience)
