"""Addresses of the machine, asked of its kernel, and which of them count."""

from __future__ import annotations

import pytest

from krun_iptables import interfaces, owners
from krun_iptables.network import address


@pytest.mark.loopback
def test_the_kernel_tells_of_loopback_at_least() -> None:
    assert any(address.is_loopback for address in interfaces.addresses())


@pytest.mark.parametrize(
    ("addresses", "families"),
    [
        ([], set()),
        (["127.0.0.1", "::1", "fe80::1", "169.254.1.1"], set()),
        (["127.0.0.1", "10.0.0.2"], {4}),
        (["10.0.0.2", "fe80::1"], {4}),
        (["::1", "fd00::2"], {6}),
        (["192.0.2.1", "2001:db8::1"], {4, 6}),
    ],
)
def test_loopback_and_the_link_alone_do_not_count(addresses: list[str], families: set[int]) -> None:
    assert interfaces.usable(map(address, addresses)) == families


def test_users_and_groups_are_found_by_name() -> None:
    assert (owners.uid("root"), owners.gid("root")) == (0, 0)
    for name in ("no-such-name", "", "a\0b"):
        assert (owners.uid(name), owners.gid(name)) == (None, None)
