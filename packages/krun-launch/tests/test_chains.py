"""Whether the rules are there, by the text of iptables-save."""

from __future__ import annotations

import pytest

from krun_launch.chains import has_table, is_in

OURS = b"*nat\n:PREROUTING ACCEPT [0:0]\n:ISTIO_OUTPUT - [0:0]\n-A OUTPUT -j ISTIO_OUTPUT\nCOMMIT\n"


@pytest.mark.parametrize(
    ("saved", "found"),
    [
        (b"", False),
        (OURS, True),
        (b"*filter\n:INPUT ACCEPT [0:0]\nCOMMIT\n" + OURS, True),
        (OURS.replace(b"*nat", b"*filter"), False),
        (OURS.replace(b"ISTIO_OUTPUT", b"ISTIO_OUTPUTS"), False),
        (b"*nat\n-A OUTPUT -m comment --comment :ISTIO_OUTPUT -j X\nCOMMIT\n", False),
    ],
)
def test_our_chain_in_table_nat(saved: bytes, found: bool) -> None:
    assert is_in(saved) is found


@pytest.mark.parametrize(
    ("listed", "found"),
    [
        (b"", False),
        (b"table ip nat\ntable inet istio-proxy-nat\n", True),
        (b"table inet istio-proxy-nat-of-others\ntable ip istio-proxy-nat\n", False),
    ],
)
def test_our_table_of_native_rules(listed: bytes, found: bool) -> None:
    assert has_table(listed) is found
