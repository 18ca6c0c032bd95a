"""Whatever an API server answers is an object, nothing, or a failure that names the server and what was asked."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from krun_discover.errors import Denied, Failure, Misconfigured, Unreachable
from krun_discover.kube_access import Access
from krun_discover.kube_answer import DNS_HINT, GATEWAY_HINT, TOKENS_HINT, NotThere, judge, silent
from krun_discover.kube_credentials import Google, Text
from krun_discover.kube_target import Target
from krun_discover.web import NoReply, Reply

CANARY = "canary-6a1f-0123456789"
ACCESS = Access(verb="get", resource="configmaps", namespace="demo", name="mesh-env")
TARGET = Target(server="https://api.example", source="a test", credentials=Text(token=CANARY, title="the token"))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
OBJECTS = st.fixed_dictionaries(
    {},
    optional={
        "kind": st.just("Status") | VALUES,
        "message": st.just('x is forbidden: User "me" cannot get resource "x" in the namespace "y"') | VALUES,
        "details": st.fixed_dictionaries({}, optional={"kind": VALUES}) | VALUES,
        "error": st.fixed_dictionaries({}, optional={"message": VALUES}) | VALUES,
    },
)


def reply(status: int, content: Any) -> Reply:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    return Reply(status=status, headers={}, body=body)


def failure(answered: Reply, kind: type[Failure], *, target: Target = TARGET) -> Failure:
    with pytest.raises(kind) as caught:
        judge(answered, access=ACCESS, target=target)
    return caught.value


@given(
    status=st.sampled_from([200, 201, 204, 301, 400, 401, 403, 404, 409, 422, 429, 500, 503]) | st.integers(100, 599),
    content=st.binary() | VALUES | OBJECTS,
)
def test_any_answer_is_an_object_or_nothing_or_a_failure(status: int, content: Any) -> None:
    outcome: object
    try:
        outcome = judge(reply(status, content), access=ACCESS, target=TARGET)
    except (Failure, NotThere) as error:
        outcome = error
    if isinstance(outcome, Failure):
        assert TARGET.server in outcome.message
        assert outcome.message.isprintable()
        assert len(outcome.message) < 2500
        assert outcome.hint
    assert isinstance(outcome, NotThere) == (status == 404)
    if isinstance(outcome, dict):
        assert status in (200, 201)


@pytest.mark.parametrize(
    ("server", "hint"),
    [
        ("https://gke-1.us-central1.gke.goog", DNS_HINT),
        ("https://connectgateway.googleapis.com/v1/projects/1/locations/global/gkeMemberships/m", GATEWAY_HINT),
        ("https://10.0.0.1", "grant the account what the message names"),
    ],
)
def test_a_refusal_of_googles_front_has_the_role_that_is_missing(server: str, hint: str) -> None:
    body = {"error": {"code": 403, "message": "Permission 'container.clusters.connect' denied on resource"}}
    error = failure(reply(403, body), Denied, target=Target(server=server, source="a test"))
    assert error.hint == hint
    assert "Permission 'container.clusters.connect' denied" in error.message


def test_a_dns_endpoint_that_takes_no_kubernetes_tokens_is_told() -> None:
    server, google = "https://gke-1.us-central1.gke.goog", Google(google=pytest.fail)
    by_token = Target(server=server, source="a test", credentials=TARGET.credentials)
    assert failure(reply(401, {}), Denied, target=by_token).hint == TOKENS_HINT
    by_google = Target(server=server, source="a test", credentials=google)
    assert failure(reply(401, {}), Denied, target=by_google).hint == google.remedy


def test_a_token_that_a_server_repeats_is_not_repeated_by_us() -> None:
    message = "token eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ4In0.c2lnbmF0dXJl is bad"
    for status, kind in ((401, Denied), (422, Misconfigured), (500, Unreachable)):
        error = failure(reply(status, {"kind": "Status", "message": message}), kind)
        assert "eyJ" not in error.message
        assert "token *** is bad" in error.message


@pytest.mark.parametrize("kind", ["name", "refused", "tls", "timeout", "proxy", "broken", "malformed"])
def test_whatever_the_silence_is_its_hint_says_where_to_look(kind: str) -> None:
    error = silent(TARGET, NoReply("a reason", kind=kind))
    assert error.message == "API server https://api.example (a test): a reason"
    assert error.hint
