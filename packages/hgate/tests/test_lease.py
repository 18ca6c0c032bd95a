"""What to do with a lease that was read, and what it says after that."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from hgate.lease import Step, decide, spec_of

NOW = datetime(2026, 11, 26, 7, 0, tzinfo=UTC)


def lease(holder: str | None, *, life: object = 15) -> dict[str, Any]:
    return {
        "spec": {"holderIdentity": holder, "leaseDurationSeconds": life, "leaseTransitions": 3, "acquireTime": "then"}
    }


@pytest.mark.parametrize(
    ("found", "unchanged", "step"),
    [
        (None, 0.0, Step.CREATE),
        (lease("me"), 0.0, Step.RENEW),
        (lease("me"), 1e6, Step.RENEW),
        (lease("other"), 0.0, Step.WAIT),
        (lease("other"), 14.9, Step.WAIT),
        (lease("other"), 15.0, Step.TAKE),
        (lease(""), 0.0, Step.TAKE),
        (lease(None), 0.0, Step.TAKE),
        (lease("other", life=None), 14.0, Step.WAIT),
        (lease("other", life="soon"), 16.0, Step.TAKE),
        ({}, 0.0, Step.TAKE),
        ({"spec": None}, 0.0, Step.TAKE),
    ],
)
def test_the_step_follows_from_the_holder_and_from_how_long_nothing_has_changed(
    found: dict[str, Any] | None, unchanged: float, step: Step
) -> None:
    assert decide(found, me="me", unchanged=unchanged) is step


def test_a_taken_lease_counts_its_holders_and_a_renewed_one_does_not() -> None:
    taken = spec_of(lease("other"), step=Step.TAKE, me="me", life=15, now=NOW)
    assert (taken["holderIdentity"], taken["leaseTransitions"]) == ("me", 4)
    assert taken["acquireTime"] == taken["renewTime"] == "2026-11-26T07:00:00.000000Z"
    renewed = spec_of(lease("me"), step=Step.RENEW, me="me", life=15, now=NOW)
    assert (renewed["leaseTransitions"], renewed["acquireTime"]) == (3, "then")
    assert spec_of(None, step=Step.CREATE, me="me", life=0.2, now=NOW)["leaseDurationSeconds"] == 1
