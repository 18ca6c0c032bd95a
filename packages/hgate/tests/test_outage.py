"""Failures of the Kubernetes API are told once when they begin, and once when they are over."""

from __future__ import annotations

import logging

import pytest

from hgate.errors import Unreachable
from hgate.kube_access import Access
from hgate.kube_answer import Answer
from hgate.outage import DOUBT, REMIND, Outages

SERVICES = Access(verb="list", resource="services")


def refusal(status: int, *, reason: str = "", access: Access = SERVICES) -> Answer:
    return Answer(access=access, status=status, reason=reason, message="no")


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, logger="hgate.outage")
    return caplog


def test_many_watches_that_lose_one_server_are_one_line(said: pytest.LogCaptureFixture) -> None:
    now = [100.0]
    outages = Outages(clock=lambda: now[0])
    for who in ("Service", "Sidecar", "lease"):
        outages.failed(who, Unreachable(f"{who}: connection refused"), access=SERVICES)
    outages.failed("Service", refusal(503))
    assert said.messages == ["Kubernetes API out of reach"]
    assert outages.is_out_of_reach
    now[0] += 12.5
    outages.worked("Service")
    outages.worked("lease")
    assert said.messages == ["Kubernetes API out of reach"]
    outages.worked("Sidecar")
    assert said.messages == ["Kubernetes API out of reach", "Kubernetes API answers again"]
    assert said.records[-1].fields == {"duration_ms": 12500}  # type: ignore[attr-defined]
    # The next one is a new one.
    outages.failed("Service", Unreachable("gone"), access=SERVICES)
    assert len(said.messages) == 3


def test_an_outage_that_lasts_is_said_again_from_time_to_time(said: pytest.LogCaptureFixture) -> None:
    now = [0.0]
    outages = Outages(clock=lambda: now[0])
    for _ in range(100):
        outages.failed("Service", Unreachable("gone"), access=SERVICES)
        now[0] += REMIND / 10
    assert len(said.messages) == 10


def test_each_right_that_is_missing_is_named_once(said: pytest.LogCaptureFixture) -> None:
    outages = Outages(clock=lambda: 0.0)
    create = Access(verb="create", resource="sidecars", group="networking.istio.io", namespace="demo")
    for _ in range(3):
        outages.failed("Service", refusal(403, reason="Forbidden"))
        outages.failed("writing", refusal(403, reason="Forbidden", access=create))
    assert said.messages == ["not permitted", "not permitted"]
    fields = [record.fields for record in said.records]  # type: ignore[attr-defined]
    assert [(each["verb"], each["resource"]) for each in fields] == [
        ("list", "services"),
        ("create", "demo/sidecars.networking.istio.io"),
    ]
    assert all("manifests" in each["hint"] for each in fields)
    # It is no outage: the server is there.
    assert not outages.is_out_of_reach
    outages.worked("Service")
    assert said.messages[-1] == "Kubernetes API permits it again"


def test_a_server_that_has_just_come_back_is_not_believed_at_once_that_rights_are_missing(
    said: pytest.LogCaptureFixture,
) -> None:
    now = [100.0]
    outages = Outages(clock=lambda: now[0])
    outages.failed("Service", Unreachable("gone"), access=SERVICES)
    outages.failed("Service", refusal(403, reason="Forbidden"))
    now[0] += 1
    outages.failed("Service", refusal(403, reason="Forbidden"))
    outages.worked("Service")
    assert said.messages == ["Kubernetes API out of reach", "Kubernetes API answers again"]
    # Nor in the moments after it; what lasts is believed.
    now[0] += DOUBT / 2
    outages.failed("Service", refusal(403, reason="Forbidden"))
    assert said.messages[2:] == []
    now[0] += DOUBT / 2
    outages.failed("Service", refusal(403, reason="Forbidden"))
    assert said.messages[2:] == ["not permitted"]


def test_a_right_that_was_taken_away_during_an_outage_is_named_when_that_lasts(said: pytest.LogCaptureFixture) -> None:
    now = [100.0]
    outages = Outages(clock=lambda: now[0])
    outages.failed("Service", Unreachable("gone"), access=SERVICES)
    for _ in range(2):
        outages.failed("Service", refusal(403, reason="Forbidden"))
        now[0] += DOUBT
    assert said.messages == ["Kubernetes API out of reach", "not permitted"]
    # The next outage, long after, is a new one.
    outages.worked("Service")
    now[0] += REMIND
    outages.failed("Service", Unreachable("gone"), access=SERVICES)
    outages.failed("Service", refusal(403, reason="Forbidden"))
    assert said.messages.count("not permitted") == 1
