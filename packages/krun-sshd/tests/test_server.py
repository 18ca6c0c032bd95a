from __future__ import annotations

import pytest

from krun_sshd.server import forward_target


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.8.7", "::1"])
def test_loopback_is_forwarded_to_as_it_is(host: str) -> None:
    assert forward_target(host, loopback="127.0.0.2") == host


@pytest.mark.parametrize("host", ["localhost", "LocalHost."])
def test_localhost_means_the_workloads_own_loopback_address(host: str) -> None:
    assert forward_target(host, loopback="127.0.0.2") == "127.0.0.2"


@pytest.mark.parametrize(
    "host", ["10.0.0.1", "169.254.169.254", "0.0.0.0", "metadata.google.internal", "", "127.0.0.1.example"]
)
def test_anything_else_is_refused(host: str) -> None:
    assert forward_target(host, loopback="127.0.0.1") is None
