"""Fixtures of every package's tests: loopback addresses, a certificate authority, the parts of the testbed."""

from __future__ import annotations

import os
import signal
import threading

import hypothesis
import pytest

from krun_testbed.addresses import loopback
from krun_testbed.certificates import Authority

# `make soak` asks for the long form. No deadline: a slow machine is no failure.
hypothesis.settings.register_profile("short", max_examples=100, deadline=None)
hypothesis.settings.register_profile("soak", max_examples=2000, deadline=None)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "short"))


def pytest_configure() -> None:
    """Take the signals back that a shell ignores for what it runs in the background.

    Ignored ones are inherited by every command of the tests, and a shell script cannot even trap them (POSIX, trap).
    """
    if threading.current_thread() is threading.main_thread():
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        if signal.getsignal(signal.SIGQUIT) is signal.SIG_IGN:
            signal.signal(signal.SIGQUIT, signal.SIG_DFL)


@pytest.fixture
def address() -> str:
    """A loopback address of this test alone."""
    return loopback()


@pytest.fixture(scope="session")
def authority() -> Authority:
    """The root that the parts of a test trust."""
    return Authority()
