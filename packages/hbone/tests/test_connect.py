"""CONNECT as the POST that asks for the same port; whatever is no plain CONNECT stays what it is."""

from __future__ import annotations

import pytest

from hbone.connect import as_post
from hbone.events import Fields, StreamOpened


def opened(*fields: tuple[bytes, bytes]) -> StreamOpened:
    named = dict(fields)
    return StreamOpened(
        stream=3, method=named.get(b":method", b"").decode(), path=named.get(b":path", b"").decode(), fields=fields
    )


@pytest.mark.parametrize("authority", [b"10.0.0.1:15003", b"[::1]:15003", b"b.demo.svc:15003"])
def test_connect_asks_for_the_port_of_its_authority_and_keeps_its_other_headers(authority: bytes) -> None:
    found = as_post(opened((b":method", b"CONNECT"), (b":authority", authority), (b"x-a", b"1")))
    assert (found.method, found.path, found.stream) == ("POST", "/_hbone/15003", 3)
    pseudo = ((b":method", b"POST"), (b":scheme", b"http"), (b":authority", authority), (b":path", b"/_hbone/15003"))
    assert found.fields == (*pseudo, (b"x-a", b"1"))


@pytest.mark.parametrize(
    "fields",
    [
        ((b":method", b"POST"), (b":authority", b"a:1"), (b":scheme", b"http"), (b":path", b"/_hbone/1")),
        ((b":method", b"CONNECT"),),
        ((b":method", b"CONNECT"), (b":authority", b"a")),
        ((b":method", b"CONNECT"), (b":authority", b":15003")),
        ((b":method", b"CONNECT"), (b":authority", b"a:http")),
        ((b":method", b"CONNECT"), (b":authority", b"a:15003/x")),
        ((b":method", b"CONNECT"), (b":authority", b"a:15003"), (b":authority", b"a:22")),
        ((b":method", b"CONNECT"), (b":authority", b"a:15003"), (b":scheme", b"http")),
        ((b":method", b"CONNECT"), (b":authority", b"a:15003"), (b":path", b"/_hbone/22")),
        ((b":method", b"CONNECT"), (b":authority", b"a:15003"), (b":protocol", b"websocket")),
    ],
)
def test_other_requests_stay_what_they_are(fields: Fields) -> None:
    event = opened(*fields)
    assert as_post(event) is event
