"""Fixtures of every package's tests: loopback addresses, a certificate authority, the parts of the testbed."""

from __future__ import annotations

import os

import hypothesis
import pytest

from krun_testbed.addresses import loopback
from krun_testbed.certificates import Authority

# `make soak` asks for the long form. No deadline: a slow machine is no failure.
hypothesis.settings.register_profile("short", max_examples=100, deadline=None)
hypothesis.settings.register_profile("soak", max_examples=2000, deadline=None)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "short"))


@pytest.fixture
def address() -> str:
    """A loopback address of this test alone."""
    return loopback()


@pytest.fixture(scope="session")
def authority() -> Authority:
    """The root that the parts of a test trust."""
    return Authority()
