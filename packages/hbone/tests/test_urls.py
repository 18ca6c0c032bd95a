from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hbone.urls import Address, parse_address, parse_listen, parse_url


@pytest.mark.parametrize(
    ("text", "url", "audience"),
    [
        ("https://b.example/_hbone/22", "https://b.example/_hbone/22", "https://b.example"),
        ("https://b.example:443/_hbone/22", "https://b.example/_hbone/22", "https://b.example"),
        ("b.example:443/_hbone/22", "https://b.example/_hbone/22", "https://b.example"),
        ("b.example/_hbone/22", "https://b.example/_hbone/22", "https://b.example"),
        ("b.example:22", "https://b.example/_hbone/22", "https://b.example"),
        ("B.Example:22", "https://b.example/_hbone/22", "https://b.example"),
        ("https://b.example:8443/_hbone/22", "https://b.example:8443/_hbone/22", "https://b.example"),
        ("http://127.0.0.1:15009/_hbone/ssh", "http://127.0.0.1:15009/_hbone/ssh", "https://127.0.0.1"),
        ("[::1]:22", "https://[::1]/_hbone/22", "https://[::1]"),
        ("http://[::1]:15009/_hbone/22", "http://[::1]:15009/_hbone/22", "https://[::1]"),
    ],
)
def test_forms_of_a_tunnels_name(text: str, url: str, audience: str) -> None:
    found = parse_url(text)
    assert (str(found), found.audience) == (url, audience)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "b.example",
        "https://b.example",
        "https://b.example/",
        "https://b.example/_hbone/",
        "https://b.example/other",
        "https://u:p@b.example/_hbone/22",
        "https://b.example/_hbone/22?x",
        "https://b.example/_hbone/22#x",
        "https://b.example/_hbone/2 2",
        "https://b.example/_hbone/22\r\nx:y",
        "ftp://b.example/_hbone/22",
        "https://b.example:0/_hbone/22",
        "https://b.example:65536/_hbone/22",
        "https:///_hbone/22",
        "https://b example/_hbone/22",
        "b.example:0",
        "b.example:65536",
        "b.example:ssh",
        "::1:22",
        "-x:22",
    ],
)
def test_what_names_no_tunnel_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        parse_url(text)


def test_url_without_path_takes_the_default() -> None:
    assert str(parse_url("https://b.example", default_path="/_hbone/15003")) == "https://b.example/_hbone/15003"
    assert str(parse_url("https://b.example/_hbone/22", default_path="/_hbone/15003")).endswith("/22")


@given(st.text(max_size=40))
def test_parsing_raises_nothing_but_value_error(text: str) -> None:
    for parse in (parse_url, parse_address, parse_listen):
        with contextlib.suppress(ValueError):
            assert str(parse(text))


@given(st.from_regex(r"[a-z][a-z0-9]{0,10}(\.[a-z][a-z0-9]{0,10}){0,3}", fullmatch=True), st.integers(1, 65535))
def test_what_is_printed_reads_as_the_same(host: str, port: int) -> None:
    for scheme in ("http", "https"):
        url = parse_url(f"{scheme}://{host}:{port}/_hbone/22")
        assert parse_url(str(url)) == url


@pytest.mark.parametrize(
    ("host", "is_loopback"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("localhost", True), ("10.0.0.1", False)],
)
def test_loopback_is_known_by_name(host: str, is_loopback: bool) -> None:
    assert Address(host=host, port=1).is_loopback is is_loopback
    assert not Address(host="127.0.0.1.example", port=1).is_loopback


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("5432", "127.0.0.1:5432"),
        ("0", "127.0.0.1:0"),
        ("0.0.0.0:5432", "0.0.0.0:5432"),
        ("localhost:1", "127.0.0.1:1"),
        ("[::1]:0", "[::1]:0"),
    ],
)
def test_listening_is_on_loopback_unless_told(text: str, address: str) -> None:
    assert str(parse_listen(text)) == address


@pytest.mark.parametrize("text", ["", "x", "b.example:1", "70000", "127.0.0.1"])
def test_what_cannot_be_listened_on_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        parse_listen(text)
