"""Answers of the application, judged: what it said in, an Answer out, or why it cannot be handed on. No I/O."""

from __future__ import annotations

import re
from collections.abc import Iterable

from hbone import fields as field_rules
from hbone.events import Fields
from hbone.message import Answer, Request

_LENGTH = re.compile(rb"[0-9]{1,18}")


class MalformedAnswer(Exception):
    """It cannot be handed on; the text says why, and quotes nothing of it."""


def http1(status: int, fields: Iterable[tuple[bytes, bytes]], *, reason: bytes) -> Answer:
    """An answer that h11 has read. Raises MalformedAnswer."""
    given = tuple(fields)
    is_chunked = any(name.lower() == b"transfer-encoding" for name, _ in given)
    if is_chunked:  # then it counts alone (RFC 9112 §6.3)
        given = tuple(field for field in given if field[0].lower() != b"content-length")
    return _answer(status, given, reason=reason, ends=False)


def http2(status: int, fields: Fields, *, ends: bool) -> Answer:
    """An answer over HTTP/2, with its pseudo-header. Raises MalformedAnswer."""
    rest = fields[1:]
    if not status or (rest and any(name.startswith(b":") for name, _ in rest)):
        raise MalformedAnswer("a status that is none, or other pseudo-headers")
    return _answer(status, rest, reason=b"", ends=ends)


def _answer(status: int, fields: Fields, *, reason: bytes, ends: bool) -> Answer:
    kept = field_rules.answered(fields)
    if not field_rules.are_well_formed(kept):
        raise MalformedAnswer("a header that is malformed")
    if status < 200:  # it has no body, so nothing that would frame one
        kept = tuple(field for field in kept if field[0].lower() != b"content-length")
    lengths = {value for name, value in kept if name.lower() == b"content-length"}
    if len(lengths) > 1 or not all(_LENGTH.fullmatch(value) for value in lengths):
        raise MalformedAnswer("several lengths, or one that is no number")
    return Answer(
        status=status,
        fields=kept,
        reason=reason,
        ends=ends,
        length=int(next(iter(lengths))) if lengths else None,
        has_trailers=any(name.lower() == b"trailer" for name, _ in kept),
    )


def without_length(fields: Fields) -> Fields:
    """The fields of a message whose length is told in another way."""
    return tuple(field for field in fields if field[0].lower() != b"content-length")


def is_chunked(request: Request, answer: Answer) -> bool:
    """Whether an HTTP/1 client gets the answer's body in chunks: its end is not known, or trailers follow it."""
    is_open = answer.length is None or answer.has_trailers
    return is_open and request.version == "1.1" and answer.has_body(request.method)
