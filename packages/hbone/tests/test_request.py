"""Requests, judged: what is read, and what is refused with which status."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hbone import request as requests
from hbone.events import Fields
from hbone.message import Request
from hbone.offers import Refusal

LINES = b"GET / HTTP/1.1\r\nhost: a.example"
PSEUDO: Fields = ((b":method", b"GET"), (b":scheme", b"http"), (b":authority", b"a.example"), (b":path", b"/"))


def http1(*lines: bytes, first: bytes = b"POST / HTTP/1.1", host: bytes = b"host: a.example") -> Request | Refusal:
    return requests.http1(b"\r\n".join((first, host, *lines) if host else (first, *lines)))


def http2(*more: tuple[bytes, bytes], **changed: bytes | None) -> Request | Refusal:
    """A GET without a body; ``changed`` are pseudo-headers by name, None for one that is missing."""
    given_fields = {name.decode()[1:]: value for name, value in PSEUDO} | changed
    pseudo = [(b":" + name.encode(), value) for name, value in given_fields.items() if value is not None]
    return requests.http2((*pseudo, *more), is_empty=True)


def read(found: Request | Refusal) -> Request:
    assert isinstance(found, Request), found
    return found


def status(found: Request | Refusal) -> int:
    return found.status if isinstance(found, Refusal) else 200


@given(head=st.binary(max_size=200) | st.binary(max_size=80).map(lambda rest: LINES + b"\r\n" + rest))
def test_any_bytes_are_a_request_without_control_characters_or_refused(head: bytes) -> None:
    found = requests.http1(head)
    if isinstance(found, Request):
        assert not any(set(value) & set(b"\r\n\0") for field in found.fields for value in field)
        assert not set(found.path + found.authority) & set(b"\r\n\0 ")
    else:
        assert 400 <= found.status <= 505


@given(fields=st.lists(st.tuples(st.binary(max_size=12), st.binary(max_size=12)), max_size=6), is_empty=st.booleans())
def test_any_fields_are_a_request_or_refused(fields: list[tuple[bytes, bytes]], is_empty: bool) -> None:
    for sent in (tuple(fields), (*PSEUDO, *fields)):
        found = requests.http2(sent, is_empty=is_empty)
        if isinstance(found, Request):
            assert all(name == name.lower() and not set(name + value) & set(b"\r\n\0") for name, value in found.fields)


@given(name=st.from_regex(rb"[a-z][a-z0-9-]{0,9}", fullmatch=True), bad=st.sampled_from([b"\r", b"\n", b"\0"]))
def test_line_ends_and_nul_are_400_wherever_they_are(name: bytes, bad: bytes) -> None:
    assert status(http1(name + b": a" + bad + b"b")) == 400
    assert status(http1(name + bad + b": a")) == 400
    assert status(http2((name, b"a" + bad + b"b"))) == 400
    assert status(http2((name + bad, b"a"))) == 400
    assert status(http2(path=b"/a" + bad)) == 400
    assert status(http2(authority=b"a" + bad)) == 400


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ((b"content-length: 1", b"transfer-encoding: chunked"), 400),
        ((b"content-length: 1", b"content-length: 2"), 400),
        ((b"content-length: 1, 1",), 400),
        ((b"content-length: +1",), 400),
        ((b"content-length: 0x1",), 400),
        ((b"content-length: ",), 400),
        ((b"content-length: " + b"9" * 19,), 400),
        ((b"transfer-encoding: gzip, chunked",), 400),
        ((b"transfer-encoding: chunked", b"transfer-encoding: chunked"), 400),
        ((b"transfer-encoding: gzip",), 501),
        ((b"transfer-encoding : chunked",), 400),
        ((b"x-a: 1", b" folded"), 400),
        ((b"x-a: 1", b"\tfolded"), 400),
        ((b"no colon",), 400),
        ((b": no name",), 400),
        ((b"x a: 1",), 400),
        ((b"host: a.example",), 400),
        ((b"x-a: " + b"1" * requests.MAX_HEAD,), 431),
        ((b"x-a: 1",) * requests.MAX_FIELDS, 431),
    ],
)
def test_ambiguous_head_is_refused(lines: tuple[bytes, ...], expected: int) -> None:
    assert status(http1(*lines)) == expected


@pytest.mark.parametrize(
    ("first", "expected"),
    [
        (b"GET /", 400),
        (b"GET  / HTTP/1.1", 400),
        (b"GET / HTTP/1.1 ", 400),
        (b"GET / http/1.1", 400),
        (b"G\x00T / HTTP/1.1", 400),
        (b"GET / HTTP/2.0", 505),
        (b"GET x HTTP/1.1", 400),
        (b"GET * HTTP/1.1", 400),
        (b"GET /#part HTTP/1.1", 400),
        (b"GET http://b.example/ HTTP/1.1", 400),
        (b"GET http://user@a.example/ HTTP/1.1", 400),
        (b"CONNECT a.example:443 HTTP/1.1", 405),
        (b"TRACE / HTTP/1.1", 405),
        (b"GET /" + b"a" * requests.MAX_TARGET + b" HTTP/1.1", 414),
    ],
)
def test_request_line_that_is_not_served_is_refused(first: bytes, expected: int) -> None:
    assert status(http1(first=first)) == expected


@pytest.mark.parametrize(
    "host", [b"", b"user@a", b"a b", b"a/b", b"a:b", b"a:65536", b"a:1:2", b"[::1", b"a,b", b"a?b", b"\xe9"]
)
def test_host_that_is_none_is_400(host: bytes) -> None:
    assert status(http1(host=b"host: " + host)) == 400
    assert status(http2(authority=host)) == 400


@pytest.mark.parametrize("host", [b"a", b"a.example:8080", b"192.0.2.1", b"[2001:db8::1]:80", b"my_service"])
def test_host_is_read(host: bytes) -> None:
    assert read(http1(host=b"host: " + host)).authority == host
    assert read(http2(authority=host)).authority == host
    assert read(http2((b"host", host), authority=None)).authority == host


def test_host_may_be_missing_in_http_1_0_alone() -> None:
    assert status(http1(host=b"")) == 400
    assert read(http1(first=b"GET / HTTP/1.0", host=b"")).authority == b""


@pytest.mark.parametrize(
    ("target", "path"),
    [
        (b"http://a.example/x?y", b"/x?y"),
        (b"HTTP://A.example", b"/"),
        (b"http://a.example?y", b"/?y"),
        (b"http://a.example/_hbone/1", b"/_hbone/1"),
    ],
)
def test_absolute_target_gives_path_and_host(target: bytes, path: bytes) -> None:
    assert read(http1(first=b"GET " + target + b" HTTP/1.1")).path == path


def test_asterisk_is_for_options() -> None:
    assert read(http1(first=b"OPTIONS * HTTP/1.1")).path == b"*"
    assert read(http2(method=b"OPTIONS", path=b"*")).path == b"*"
    assert status(http2(path=b"*")) == 400


@pytest.mark.parametrize(
    "changed",
    [{"method": None}, {"scheme": None}, {"path": None}, {"authority": None}, {"path": b""}, {"path": b"x"}]
    + [{"scheme": b"ftp"}, {"method": b"G T"}, {"method": b""}, {"status": b"200"}, {"protocol": b"websocket"}],
)
def test_pseudo_headers_that_are_missing_malformed_or_unknown_are_400(changed: dict[str, bytes | None]) -> None:
    assert status(http2(**changed)) == 400


@pytest.mark.parametrize(
    "field",
    [
        (b":path", b"/twice"),
        (b"X-Upper", b"1"),
        (b"", b"1"),
        (b"x a", b"1"),
        (b"x-a", b" 1"),
        (b"connection", b"close"),
        (b"keep-alive", b"1"),
        (b"proxy-connection", b"close"),
        (b"transfer-encoding", b"chunked"),
        (b"upgrade", b"websocket"),
        (b"te", b"gzip"),
        (b"host", b"b.example"),
        (b"content-length", b"x"),
        (b"content-length", b"1"),  # and no body
    ],
)
def test_field_that_http2_does_not_have_is_400(field: tuple[bytes, bytes]) -> None:
    assert status(http2(field)) == 400


def test_pseudo_header_after_a_field_is_400() -> None:
    assert status(requests.http2((*PSEUDO[:3], (b"x-a", b"1"), PSEUDO[3]), is_empty=True)) == 400


def test_limits_of_http2_have_their_own_statuses() -> None:
    assert status(http2(path=b"/" + b"a" * requests.MAX_TARGET)) == 414
    assert status(http2((b"x-a", b"1" * requests.MAX_HEAD))) == 431
    assert status(http2(*[(b"x-a", b"1")] * (requests.MAX_FIELDS + 1))) == 431
    assert status(http2(method=b"CONNECT")) == 405
    assert status(http2(method=b"TRACE")) == 405


def test_refusal_quotes_nothing_of_the_request() -> None:
    found = http2((b"x-secret\n", b"canary"))
    assert isinstance(found, Refusal)
    assert "secret" not in found.text
    assert "canary" not in found.text


@pytest.mark.parametrize(
    ("lines", "length", "has_body"),
    [
        ((), None, False),
        ((b"content-length: 0",), 0, False),
        ((b"content-length: 7",), 7, True),
        ((b"Transfer-Encoding: Chunked",), None, True),
    ],
)
def test_framing_is_read(lines: tuple[bytes, ...], length: int | None, has_body: bool) -> None:
    found = read(http1(*lines))
    assert (found.length, found.has_body, found.fields) == (length, has_body, ())


@pytest.mark.parametrize(
    ("first", "lines", "is_last"),
    [
        (b"GET / HTTP/1.1", (), False),
        (b"GET / HTTP/1.1", (b"connection: x, Close",), True),
        (b"GET / HTTP/1.0", (), True),
    ],
)
def test_last_request_of_a_connection_is_known(first: bytes, lines: tuple[bytes, ...], is_last: bool) -> None:
    assert read(http1(*lines, first=first)).is_last is is_last


def test_websocket_is_the_one_upgrade_that_is_known() -> None:
    upgrade = (b"connection: keep-alive, Upgrade", b"upgrade: websocket")
    assert read(http1(*upgrade, first=b"GET / HTTP/1.1")).is_websocket
    assert read(http1(*upgrade, first=b"GET / HTTP/1.1")).fields == ()
    assert not read(http1(*upgrade)).is_websocket  # POST
    assert not read(http1(upgrade[1], first=b"GET / HTTP/1.1")).is_websocket
    assert not read(http1(*upgrade, first=b"GET / HTTP/1.0")).is_websocket
    assert not read(http1(upgrade[0], b"upgrade: h2c", first=b"GET / HTTP/1.1")).is_websocket


@pytest.mark.parametrize(
    ("kind", "is_grpc"),
    [
        (b"application/grpc", True),
        (b"application/grpc+proto", True),
        (b"Application/gRPC; charset=utf-8", True),
        (b"application/grpc-web", False),
        (b"application/grpc-web+proto", False),
        (b"application/json", False),
    ],
)
def test_grpc_is_known_by_its_content_type(kind: bytes, is_grpc: bool) -> None:
    assert read(http2((b"content-type", kind))).is_grpc is is_grpc
    assert read(http1(b"content-type: " + kind)).is_grpc is is_grpc


def test_trailers_are_taken_by_who_says_so() -> None:
    assert read(http2((b"te", b"trailers"))).takes_trailers
    assert read(http1(b"te: trailers", b"connection: te")).takes_trailers
    assert not read(http1(b"te: gzip", b"connection: te")).takes_trailers


def test_100_is_asked_for_by_http_1_1_alone() -> None:
    expect = b"expect: 100-continue"
    assert read(http1(expect)).fields == ((b"expect", b"100-continue"),)
    assert read(http1(expect, first=b"POST / HTTP/1.0")).fields == ()


def test_cookies_in_pieces_become_one() -> None:
    found = read(http2((b"cookie", b"a=1"), (b"x-a", b"1"), (b"cookie", b"b=2")))
    assert found.fields == ((b"x-a", b"1"), (b"cookie", b"a=1; b=2"))
