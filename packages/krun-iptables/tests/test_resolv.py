"""DNS servers as the library reads them that Istio uses."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from krun_iptables import resolv
from krun_iptables.errors import Misconfigured
from krun_iptables.network import address

if TYPE_CHECKING:
    from pathlib import Path


def test_servers_come_in_order_with_doubles_and_nothing_else() -> None:
    text = """\
# nameserver 10.0.0.1
domain example.com
nameserver 10.0.0.10
\tnameserver   2001:DB8::1   and more
search a b
nameserver localhost
nameserver 010.0.0.1
nameserver
 nameserver 10.0.0.10
nameserver10.0.0.2
options ndots:5
"""
    assert resolv.parse(text) == tuple(map(address, ("10.0.0.10", "2001:db8::1", "10.0.0.10")))


def test_the_interface_of_a_server_is_left_out() -> None:
    assert resolv.parse("nameserver fe80::1%eth0\n") == (address("fe80::1"),)


@given(st.text() | st.lists(st.ip_addresses()).map(lambda some: "\n".join(f"nameserver {one}" for one in some)))
def test_any_text_has_servers_or_none(text: str) -> None:
    assert len(resolv.parse(text)) <= text.count("nameserver")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match=r"resolv\.conf"):
        resolv.servers(str(tmp_path / "resolv.conf"))
