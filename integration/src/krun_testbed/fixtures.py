"""Fixtures of every package's tests: loopback addresses, a certificate authority, the parts of the testbed."""

from __future__ import annotations

import pytest

from krun_testbed.addresses import loopback
from krun_testbed.certificates import Authority


@pytest.fixture
def address() -> str:
    """A loopback address of this test alone."""
    return loopback()


@pytest.fixture(scope="session")
def authority() -> Authority:
    """The root that the parts of a test trust."""
    return Authority()
