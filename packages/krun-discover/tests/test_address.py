"""HOST:PORT."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from krun_discover.address import Address, parse
from krun_discover.errors import Misconfigured


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("gw", "gw", 15443),
        ("gw.example.com:443", "gw.example.com", 443),
        ("127.0.0.2:1", "127.0.0.2", 1),
        ("[::1]", "::1", 15443),
        ("[fd20:ce::254]:65535", "fd20:ce::254", 65535),
        ("my_gateway:80", "my_gateway", 80),
        ("gw.example.com.", "gw.example.com.", 15443),
    ],
)
def test_host_and_port_are_read(text: str, host: str, port: int) -> None:
    assert parse(text, what="it", default_port=15443) == Address(host=host, port=port)


@pytest.mark.parametrize(
    "text",
    ["", ":1", "gw:", "gw:0", "gw:65536", "gw:x", "gw:-1", "gw:+1", "gw:٣", "gw: 1", "gw:1:2", "::1", "[::1", "[::1]x"]
    + ["[::1]:", "[gw]:1", "[]:1", "a b:1", "gw/x", "gw\n", "gw:1\n", "-gw", "gw:" + "9" * 5000, "[::1]]:1"],
)
def test_what_is_no_address_is_refused_by_name(text: str) -> None:
    with pytest.raises(Misconfigured, match=r"^it: "):
        parse(text, what="it", default_port=1)


@given(st.text(max_size=30))
def test_any_text_is_an_address_that_reads_back_or_refused(text: str) -> None:
    try:
        address = parse(text, what="it", default_port=1)
    except Misconfigured:
        return
    assert parse(str(address), what="it", default_port=2) == address
