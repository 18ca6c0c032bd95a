"""The lines between the control process and its workers."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hgate import feed
from hgate.routes import Identity, Route

MINE = Identity(audience="https://b.example")
OTHERS = Identity(audience="https://c.example", account="gsa@p.iam.gserviceaccount.com")
B = Route(service="b", namespace="demo", url="https://b.example/_hbone/15003", identity=MINE)
C = Route(service="c", namespace="demo", port=80, subset="v1", url="tcp://192.0.2.1:15003")

MESSAGES: tuple[feed.Message, ...] = (
    feed.Settings(hello_timeout=2.5, ca_file="roots.pem", connect_to="127.0.0.1:443", token_header="x-token"),
    feed.Routes(reset=True, set=(B, C), remove=(("d", "demo", 0, ""),)),
    feed.Token(identity=OTHERS, token="a.b.c", expires=1795680000.5, email="gsa@p.iam.gserviceaccount.com"),
    feed.NoToken(identity=MINE, error="no ID token: denied", hint="grant it"),
    feed.Look(),
    feed.Drain(),
    feed.Drain(now=True),
    feed.Ready(),
    feed.Need(identity=OTHERS, refused=True),
    feed.Counts(values={"open": 3.0, "sent_bytes": 2.0**40}),
    feed.Well(),
    feed.Drained(),
)


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_message_that_is_told_is_the_one_that_is_heard(message: feed.Message) -> None:
    assert list(feed.Decoder().feed(feed.encode(message))) == [message]


TEXT = b"".join(feed.encode(message) for message in MESSAGES)


@given(st.sets(st.integers(1, len(TEXT) - 1)))
def test_lines_may_be_cut_anywhere(cuts: set[int]) -> None:
    decoder, heard = feed.Decoder(), []
    for start, end in itertools.pairwise((0, *sorted(cuts), len(TEXT))):
        heard += decoder.feed(TEXT[start:end])
    assert tuple(heard) == MESSAGES


def test_many_routes_come_in_short_lines_and_only_the_first_forgets_the_others() -> None:
    routes = [Route(service=f"s{number}", namespace="demo", url="https://b.example") for number in range(1201)]
    lines = list(feed.lines(feed.Routes(reset=True, set=tuple(routes), remove=(("d", "demo", 0, ""),))))
    heard = [message for line in lines for message in feed.Decoder().feed(line) if isinstance(message, feed.Routes)]
    assert [(message.reset, len(message.remove)) for message in heard] == [(True, 1), (False, 0), (False, 0)]
    assert [route for message in heard for route in message.set] == routes
    assert max(len(line) for line in lines) < 100_000
    for message in MESSAGES:
        assert list(feed.lines(message)) == [feed.encode(message)]


def test_message_of_another_version_is_passed_over() -> None:
    newer = json.dumps({"kind": "drain", "soon": True}).encode()
    assert list(feed.Decoder().feed(b'{"kind":"news"}\n' + newer + b"\n")) == [feed.Drain()]


@pytest.mark.parametrize(
    "line",
    [b"", b"x", b"[]", b"1", b"null", b"{}", b'{"kind":[]}', b'{"kind":"token"}', b'{"kind":"routes","set":[[]]}',
     b'{"kind":"routes","set":7}', b'{"kind":"need","audience":"a","account":', b"\xff", b"[" * 100_000],
)  # fmt: skip
def test_line_that_is_no_message_is_an_error_and_is_not_shown(line: bytes) -> None:
    with pytest.raises(feed.FeedError, match="no message"):
        list(feed.Decoder().feed(line + b"\n"))


def test_token_is_in_no_text_of_a_message_and_of_no_error() -> None:
    told = feed.Token(identity=MINE, token="canary", expires=1.0)
    assert "canary" not in repr(told)
    with pytest.raises(feed.FeedError) as raised:
        list(feed.Decoder().feed(feed.encode(told).replace(b'"expires":1.0', b'"expires":"canary"')))
    assert "canary" not in str(raised.value)


def test_line_without_an_end_is_an_error() -> None:
    decoder = feed.Decoder()
    assert list(decoder.feed(b"x" * feed.MAX_LINE)) == []
    with pytest.raises(feed.FeedError, match="bytes"):
        list(decoder.feed(b"x"))
