"""Google's tokens, from each source that a machine may have, against Google's endpoints on loopback."""

from __future__ import annotations

import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from krun_discover import token_claims
from krun_discover.errors import Denied, Failure, Misconfigured, Unreachable
from krun_discover.issued import Token
from krun_discover.token_cache import TokenCache
from krun_testbed import google_api_faults
from krun_testbed.certificates import Authority
from krun_testbed.google_machine import POOL, ROBOT, SUBJECT, Machine
from krun_testbed.metadata import MetadataServer
from krun_testbed.web_peers import answer, web_peer

pytestmark = pytest.mark.loopback

AUDIENCE = "https://web-123.us-central1.run.app"
TARGET = "target@demo-project.iam.gserviceaccount.com"
MIDDLE = "middle@demo-project.iam.gserviceaccount.com"
GKE = "identitynamespace:demo-project.svc.id.goog:https://issuer.example"


def subject(text: str = SUBJECT) -> Token:
    return Token(value=text, expires=time.time() + 600, source="a test")


def claims(token: Token) -> Mapping[str, object]:
    return token_claims.claims(token.value)


def holder(machine: Machine, token: Token) -> tuple[str, str]:
    grant = machine.apis.accounts.grants[token.value]
    return grant.principal, grant.way


def lives_an_hour(token: Token) -> bool:
    return 3500 < token.expires - time.time() <= 3600


# --- the metadata server


def test_the_metadata_server_gives_an_access_token_for_one_request(machine: Machine, metadata: MetadataServer) -> None:
    token = machine.google().access(["https://a/b", "c"])
    assert metadata.requests == ["/computeMetadata/v1/instance/service-accounts/default/token?scopes=https://a/b,c"]
    assert holder(machine, token) == (metadata.facts.email, "metadata")
    assert machine.apis.accounts.grants[token.value].scopes == ("https://a/b", "c")
    assert lives_an_hour(token)


def test_the_metadata_server_gives_an_id_token_for_one_request(machine: Machine, metadata: MetadataServer) -> None:
    token = machine.google().identity("https://b/?c=d&e")
    [asked] = metadata.requests
    assert asked.endswith("/default/identity?audience=https%3A%2F%2Fb%2F%3Fc%3Dd%26e&format=full")
    assert claims(token)["aud"] == "https://b/?c=d&e"
    assert lives_an_hour(token)


def test_where_the_platform_promises_a_metadata_server_that_fails_nobody_else_is_asked(
    machine: Machine, metadata: MetadataServer
) -> None:
    metadata.failures = [503]
    with pytest.raises(Unreachable, match="HTTP 503") as caught:
        machine.google().access()
    assert "GCE_METADATA_HOST promises one" in caught.value.hint


def test_an_answer_of_the_metadata_server_that_is_no_token_is_told(machine: Machine, address: str) -> None:
    with web_peer(address, answer(200, b"canary", "Metadata-Flavor: Google")) as peer:
        where = {"GCE_METADATA_HOST": f"{address}:{peer.port}", "NO_GCE_CHECK": ""}
        with pytest.raises(Unreachable, match="no token") as caught:
            machine.google(**where).access()
    assert "canary" not in str(caught.value)


def test_an_expired_token_in_an_answer_is_not_handed_out(machine: Machine, address: str) -> None:
    for body in (
        machine.apis.accounts.issuer.id_token(AUDIENCE, life=-10).encode(),
        b'{"access_token": "ya29.canary", "expires_in": 0}',
    ):
        with web_peer(address, answer(200, body, "Metadata-Flavor: Google")) as peer:
            where = {"GCE_METADATA_HOST": f"{address}:{peer.port}", "NO_GCE_CHECK": ""}
            tokens = machine.google(**where)
            with pytest.raises(Unreachable, match="has expired"):
                tokens.access() if b"access" in body else tokens.identity(AUDIENCE)


def test_on_gke_an_account_that_is_not_linked_is_told_how_to_link_it(
    machine: Machine, metadata: MetadataServer
) -> None:
    metadata.failures = [404]
    with pytest.raises(Misconfigured, match=r"no ID token \(not set \(404\)\)") as caught:
        machine.google(KUBERNETES_SERVICE_HOST="10.0.0.1").identity(AUDIENCE)
    assert "iam.gke.io/gcp-service-account" in caught.value.hint


# --- the order


def test_the_order_is_named_file_then_gclouds_file_then_metadata_server(
    machine: Machine, metadata: MetadataServer
) -> None:
    tokens = machine.google()
    assert holder(machine, tokens.access())[1] == "metadata"
    assert [one.outcome for one in tokens.tried] == ["not set", "not there: No such file or directory", "used"]
    login = machine.apis.oauth2.login("me@example.com")
    machine.file(login, ".config/gcloud/application_default_credentials.json")
    assert holder(machine, machine.google().access()) == ("me@example.com", "refresh")
    other = machine.file(machine.apis.oauth2.login("other@example.com"), "sdk/application_default_credentials.json")
    moved = machine.google(CLOUDSDK_CONFIG=str(Path(other).parent)).access()
    assert holder(machine, moved) == ("other@example.com", "refresh")
    metadata.requests.clear()
    machine.use(machine.key())
    tokens = machine.google()
    assert holder(machine, tokens.access()) == (ROBOT, "jwt")
    assert [one.outcome for one in tokens.tried] == ["used"]
    assert metadata.requests == []


def test_a_named_file_that_fails_is_the_end_as_the_next_would_be_somebody_else(
    machine: Machine, metadata: MetadataServer
) -> None:
    machine.environ["GOOGLE_APPLICATION_CREDENTIALS"] = str(machine.home / "missing.json")
    tokens = machine.google()
    with pytest.raises(Misconfigured, match=r"GOOGLE_APPLICATION_CREDENTIALS: .*missing\.json cannot be read"):
        tokens.access()
    assert [one.outcome.partition(":")[0] for one in tokens.tried] == ["failed"]
    assert metadata.requests == []


def test_a_home_that_is_somebody_elses_is_no_failure(machine: Machine, metadata: MetadataServer) -> None:
    # A link that leads to itself is as little to be entered as another user's home, also for root.
    (machine.home / ".config").symlink_to(machine.home / ".config")
    tokens = machine.google()
    assert holder(machine, tokens.access())[1] == "metadata"
    assert tokens.tried[1].outcome.startswith("not there: ")


def test_with_nothing_there_all_that_was_tried_is_told(machine: Machine) -> None:
    with pytest.raises(Misconfigured) as caught:
        machine.google().access()
    for words in ("GOOGLE_APPLICATION_CREDENTIALS: not set", "NO_GCE_CHECK=true", "no command gcloud"):
        assert words in caught.value.message
    assert "gcloud auth application-default login" in caught.value.hint


# --- acting for a service account


def test_the_account_to_act_for_may_be_named_with_those_on_the_way(machine: Machine, metadata: MetadataServer) -> None:
    machine.apis.accounts.actors |= {MIDDLE: {metadata.facts.email}, TARGET: {MIDDLE, metadata.facts.email}}
    act = "CLOUDSDK_AUTH_IMPERSONATE_SERVICE_ACCOUNT"
    assert claims(machine.google(**{act: TARGET}).identity(AUDIENCE))["email"] == TARGET
    token = machine.google(**{act: f"{MIDDLE}, {TARGET}"}).access()
    assert holder(machine, token) == (TARGET, "impersonation")
    assert machine.asked("iamcredentials")[-1].fields["delegates"] == [f"projects/-/serviceAccounts/{MIDDLE}"]
    with pytest.raises(Misconfigured, match="is no service account"):
        machine.google(**{act: "../x"}).access()


@pytest.mark.parametrize(
    ("kind", "role"),
    [("identity", "roles/iam.serviceAccountOpenIdTokenCreator"), ("access", "roles/iam.serviceAccountTokenCreator")],
)
def test_who_may_not_act_for_an_account_is_told_the_command_that_permits_it(
    machine: Machine, kind: str, role: str
) -> None:
    machine.use(machine.key())
    tokens = machine.google(CLOUDSDK_AUTH_IMPERSONATE_SERVICE_ACCOUNT=TARGET)
    with pytest.raises(Denied, match=f"for {TARGET}: HTTP 403: Permission") as caught:
        tokens.identity(AUDIENCE) if kind == "identity" else tokens.access()
    assert caught.value.hint == (
        f"gcloud iam service-accounts add-iam-policy-binding {TARGET} --role={role} --member='serviceAccount:{ROBOT}'"
    )


def test_errors_of_the_credentials_api_are_told_apart(machine: Machine) -> None:
    machine.use(machine.key())
    machine.apis.accounts.actors[TARGET] = {ROBOT}
    server = machine.apis.servers["iamcredentials"]
    cases: list[tuple[google_api_faults.Fault, type[Failure], str]] = [
        (
            google_api_faults.disabled("iamcredentials.googleapis.com", project="p"),
            Denied,
            "gcloud services enable iamcredentials.googleapis.com --project=p",
        ),
        (google_api_faults.status(403, "Request had insufficient authentication scopes."), Denied, "--scopes=cloud-"),
        (google_api_faults.status(404, "Not found; Gaia id not found"), Misconfigured, "describe"),
        (google_api_faults.status(400, "bad"), Misconfigured, "audience"),
        (google_api_faults.status(401, "who"), Denied, "is not taken"),
        (google_api_faults.status(500, "sorry"), Unreachable, "later"),
        (google_api_faults.malformed(), Unreachable, "reached"),
        (google_api_faults.redirect("https://elsewhere.example/"), Unreachable, "later"),
        (google_api_faults.cut(), Unreachable, "reached"),
    ]
    for fault, kind, hint in cases:
        server.faults[:] = [fault]
        with pytest.raises(kind) as caught:
            machine.google(CLOUDSDK_AUTH_IMPERSONATE_SERVICE_ACCOUNT=TARGET).identity(AUDIENCE)
        assert hint in caught.value.hint, fault
        assert f"generateIdToken for {TARGET}" in caught.value.message


def test_a_server_that_is_busy_once_is_asked_again(machine: Machine) -> None:
    machine.use(machine.key())
    machine.apis.servers["oauth2"].faults.append(google_api_faults.status(503, times=1))
    assert holder(machine, machine.google().access()) == (ROBOT, "jwt")
    assert len(machine.asked("oauth2")) == 2


def test_a_server_that_hangs_has_no_more_time_than_the_run(machine: Machine) -> None:
    machine.use(machine.key())
    machine.apis.servers["oauth2"].faults.append(google_api_faults.hang())
    begun = time.monotonic()
    with pytest.raises(Failure, match=r"no answer within|the time is up"):
        machine.google(seconds=0.7).access()
    assert time.monotonic() - begun < 5


# --- where Google is, and what is kept


@pytest.mark.parametrize(
    "url", ["http://sts.example/", "ftp://h/", "https://", "sts.example", "https://u:p@h/", "http://[::1"]
)
@pytest.mark.parametrize(
    "name", ["API_ENDPOINT_OVERRIDES_STS", "API_ENDPOINT_OVERRIDES_IAMCREDENTIALS", "AUTH_TOKEN_HOST"]
)
def test_tokens_are_not_sent_over_plain_http_nor_to_what_is_no_url(machine: Machine, name: str, url: str) -> None:
    with pytest.raises(Misconfigured, match=f"CLOUDSDK_{name}") as caught:
        machine.google(**{f"CLOUDSDK_{name}": url})
    assert "u:p" not in caught.value.message


def test_a_server_whose_certificate_is_anothers_gets_no_secret(machine: Machine) -> None:
    machine.use(machine.key())
    server = machine.apis.servers["oauth2"]
    with server.certified(Authority().server(hosts=(server.where()[0],))):
        with pytest.raises(Unreachable, match="not trusted"):
            machine.google().access()
        assert machine.asked("oauth2") == []


def test_tokens_of_a_file_are_kept_and_those_of_the_metadata_server_are_not(
    machine: Machine, metadata: MetadataServer
) -> None:
    cache = TokenCache(folder=machine.home / "tokens")
    machine.google(cache=cache).access()
    machine.google(cache=cache).access()
    assert len(metadata.requests) == 2
    assert not (machine.home / "tokens").exists()
    machine.use(machine.key())
    first = machine.google(cache=cache).access()
    assert machine.google(cache=cache).access().value == first.value
    assert machine.google(cache=cache).access(["https://another"]).value != first.value
    assert claims(machine.google(cache=cache).identity(AUDIENCE))["aud"] == AUDIENCE
    assert len(machine.asked("oauth2")) == 3
    machine.use(machine.key())  # another key
    assert machine.google(cache=cache).access().value != first.value


def test_no_secret_is_in_an_error_a_traceback_a_repr_or_an_account(
    machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    machine.apis.sts.providers[GKE] = machine.apis.sts.providers[POOL] = lambda token: "the principal"
    machine.apis.accounts.actors[TARGET] = {"the principal"}
    key, login = machine.key(), machine.apis.oauth2.login("me@example.com")
    impersonating = {"service_account_impersonation_url": machine.url_of(TARGET)}
    secrets = {SUBJECT, key["private_key"].splitlines()[5], login["refresh_token"], login["client_secret"]}
    cases: list[tuple[Mapping[str, Any], str]] = [
        (key, "oauth2"),
        (login, "oauth2"),
        (machine.external(), "sts"),
        (machine.external(**impersonating), "iamcredentials"),
    ]
    echo = google_api_faults.status(403, f"no {SUBJECT} {login['refresh_token']}")
    said: list[str] = []
    for content, name in cases:
        machine.use(content)
        for faults in ([], [echo], [google_api_faults.malformed()]):
            machine.apis.servers[name].faults[:] = faults
            tokens = machine.google(seconds=2)
            source = tokens.federated(subject, GKE, impersonate=TARGET)
            for ask in (tokens.access, lambda: tokens.identity(AUDIENCE), lambda: source.access(["a"])):  # noqa: B023
                try:
                    said.append(repr(ask()))
                except Failure as error:
                    said += ["".join(traceback.format_exception(error)), repr(error), error.hint]
            said += [repr(tokens.tried), repr(tokens), repr(source), repr(vars(source))]
    everything = "".join(said) + caplog.text
    assert "Denied" in everything
    assert len(machine.apis.accounts.grants) > 10
    assert [secret for secret in secrets | set(machine.apis.accounts.grants) if secret in everything] == []
