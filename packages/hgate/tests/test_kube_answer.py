"""Refusals of the Kubernetes API as they are read, whoever has written them."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from hgate.kube_access import Access
from hgate.kube_answer import Answer, read_answer

ACCESS = Access(verb="list", resource="services")


def read(status: int, body: bytes, **headers: str) -> Answer:
    return read_answer(access=ACCESS, status=status, headers=headers, body=body)


def test_what_kubernetes_says_is_kept_with_what_was_asked() -> None:
    said = {"kind": "Status", "reason": "Forbidden", "message": "User x cannot list services"}
    answer = read(403, json.dumps(said).encode())
    assert answer.is_denied
    assert str(answer) == "cannot list services in all namespaces: 403 Forbidden: User x cannot list services"


def test_how_long_it_wants_to_be_left_alone_is_a_header_or_a_detail_and_never_more_than_a_minute() -> None:
    assert read(429, b"{}", **{"Retry-After": "3"}).retry_after == 3.0
    assert read(500, json.dumps({"details": {"retryAfterSeconds": 2}}).encode()).retry_after == 2.0
    assert read(429, b"{}", **{"Retry-After": "86400"}).retry_after == 60.0
    assert read(429, b"{}", **{"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}).retry_after == 0.0
    assert read(429, b"{}", **{"Retry-After": "-5"}).retry_after == 0.0


def test_a_page_of_somebody_between_is_quoted_in_short() -> None:
    answer = read(502, b"<html>" + b"x" * 10_000)
    assert answer.is_passing
    assert len(answer.message) <= 400


def test_kinds_of_refusals_are_told_apart() -> None:
    assert read(410, b"").is_expired
    assert read(409, b"").is_conflict
    assert read(429, b"").is_passing
    assert read(503, b"").is_passing
    # Forbidden by an admission rule of the cluster, not by RBAC: another thing to do about it.
    assert not read(403, b"proxy says no").is_denied


@given(st.integers(400, 599), st.binary(max_size=300))
def test_no_body_is_too_strange(status: int, body: bytes) -> None:
    assert read(status, body).status == status


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(st.sampled_from(["reason", "message", "details", "retryAfterSeconds", "x"]), inner)
        ),
    )
)
def test_no_json_is_too_strange(said: object) -> None:
    assert 0.0 <= read(500, json.dumps(said).encode()).retry_after <= 60.0
