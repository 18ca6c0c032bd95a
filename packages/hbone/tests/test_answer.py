"""Answers of the application, judged: what goes on, and how its end is told."""

from __future__ import annotations

import pytest

from hbone import answer as answers
from hbone.answer import MalformedAnswer
from hbone.events import Fields
from hbone.message import Answer, Request

GET = Request(method=b"GET", path=b"/", authority=b"a", version="1.1")
HEAD = Request(method=b"HEAD", path=b"/", authority=b"a", version="1.1")
OLD = Request(method=b"GET", path=b"/", authority=b"a", version="1.0")
LENGTH = (b"Content-Length", b"3")


def test_answer_is_read_as_it_was_written() -> None:
    found = answers.http1(200, [(b"Server", b"x"), LENGTH, (b"Connection", b"close")], reason=b"Fine")
    assert found == Answer(status=200, fields=((b"Server", b"x"), LENGTH), reason=b"Fine", length=3)


def test_chunks_count_alone() -> None:
    found = answers.http1(200, [LENGTH, (b"Transfer-Encoding", b"chunked")], reason=b"")
    assert (found.length, found.fields) == (None, ())


@pytest.mark.parametrize(
    "fields",
    [
        ((b"content-length", b"x"),),
        ((b"content-length", b"-1"),),
        ((b"content-length", b"1"), (b"content-length", b"2")),
        ((b"x-a", b"1\r\nx-b: 2"),),
        ((b"x a", b"1"),),
    ],
)
def test_answer_that_could_be_read_in_two_ways_is_malformed(fields: Fields) -> None:
    with pytest.raises(MalformedAnswer):
        answers.http1(200, fields, reason=b"")
    with pytest.raises(MalformedAnswer):
        answers.http2(200, ((b":status", b"200"), *fields), ends=False)


@pytest.mark.parametrize("fields", [((b":status", b"200"), (b":path", b"/")), ((b":status", b"200"), (b":x", b"1"))])
def test_other_pseudo_headers_make_an_answer_malformed(fields: Fields) -> None:
    with pytest.raises(MalformedAnswer):
        answers.http2(200, fields, ends=False)


def test_status_that_is_none_makes_an_answer_malformed() -> None:
    with pytest.raises(MalformedAnswer):
        answers.http2(0, ((b":status", b"x"),), ends=True)


def test_information_frames_no_body() -> None:
    found = answers.http1(103, [LENGTH, (b"Link", b"</a>")], reason=b"")
    assert found.is_information
    assert (found.length, found.fields) == (None, ((b"Link", b"</a>"),))


@pytest.mark.parametrize(
    ("request_", "fields", "is_chunked"),
    [
        (GET, [], True),
        (GET, [LENGTH], False),
        (GET, [LENGTH, (b"Trailer", b"x-sum")], True),
        (HEAD, [], False),
        (OLD, [], False),
    ],
)
def test_chunks_tell_an_end_that_nothing_else_tells(
    request_: Request, fields: list[tuple[bytes, bytes]], is_chunked: bool
) -> None:
    assert answers.is_chunked(request_, answers.http1(200, fields, reason=b"")) is is_chunked


@pytest.mark.parametrize("status", [204, 304])
def test_answer_that_has_no_body_never_has_chunks(status: int) -> None:
    assert not answers.is_chunked(GET, answers.http1(status, [], reason=b""))


def test_length_is_left_out_in_any_spelling() -> None:
    assert answers.without_length((LENGTH, (b"content-length", b"3"), (b"x", b"1"))) == ((b"x", b"1"),)
