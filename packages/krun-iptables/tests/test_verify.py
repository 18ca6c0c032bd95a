"""What several proofs mean together, and how one is told."""

from __future__ import annotations

import pytest

from krun_iptables.verify import status
from krun_iptables.verify_check import Check

OK = Check(name="outbound", outcome="ok", text="arrived")
FAIL = Check(name="inbound", outcome="fail", text="did not arrive")
UNKNOWN = Check(name="inbound", outcome="unknown", text="no way leads there")
DENIED = Check(name="inbound", outcome="unknown", text="only root can", denied=True)


@pytest.mark.parametrize(
    ("checks", "code"),
    [
        ([OK], 0),
        ([OK, UNKNOWN], 0),
        ([OK, DENIED], 0),
        ([OK, FAIL], 126),
        ([DENIED, FAIL], 126),
        ([UNKNOWN], 126),
        ([], 126),
        ([DENIED], 77),
        ([UNKNOWN, DENIED], 77),
    ],
)
def test_a_failure_is_126_and_nothing_proven_is_no_success(checks: list[Check], code: int) -> None:
    assert status(checks) == code


def test_a_line_begins_with_the_outcome_in_a_column_of_its_own() -> None:
    assert [check.line for check in (OK, FAIL, UNKNOWN)] == [
        "ok      outbound: arrived",
        "fail    inbound: did not arrive",
        "unknown inbound: no way leads there",
    ]
