"""DNS messages: what is read of a query, and what is written."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from krun_launch import dns

NAME = b"\x01b\x04demo\x03svc\x00"


def query(
    name: bytes = NAME, *, kind: int = dns.A, flags: int = 0x0100, counts: tuple[int, ...] = (1, 0, 0, 0)
) -> bytes:
    return struct.pack(">HHHHHH", 0xBEEF, flags, *counts) + name + struct.pack(">HH", kind, 1)


def test_a_query_is_read() -> None:
    asked = dns.question(query())
    assert asked is not None
    assert (asked.identifier, asked.name, asked.kind, asked.has_options) == (0xBEEF, "b.demo.svc", dns.A, False)


@pytest.mark.parametrize(
    "message",
    [
        b"",
        query()[:11],
        query()[:-1],
        query(b"\xc0\x0c"),
        query(b"\x40" + b"a" * 64 + b"\0"),
        query(b"\x05abc"),
        query((b"\x3f" + b"a" * 63) * 4 + b"\0"),
        query(flags=0x8100),
        query(flags=0x2800),
        query(counts=(2, 0, 0, 0)),
        query(counts=(1, 1, 0, 0)),
    ],
)
def test_what_is_no_plain_query_is_not_ours(message: bytes) -> None:
    assert dns.question(message) is None


def test_a_dot_inside_of_a_label_separates_nothing() -> None:
    asked = dns.question(query(b"\x06b.demo\x03svc\x00"))
    assert asked is not None
    assert asked.name == "b\\demo.svc"


def test_an_answer_repeats_the_question_and_has_the_address() -> None:
    asked = dns.question(query())
    assert asked is not None
    answer = dns.address_answer(asked, address="240.240.0.1")
    identifier, flags, *counts = struct.unpack_from(">HHHHHH", answer)
    assert (identifier, flags, counts) == (0xBEEF, 0x8580, [1, 1, 0, 0])
    assert answer[12:].startswith(query()[12:])
    assert answer.endswith(bytes([0, 4, 240, 240, 0, 1]))


@pytest.mark.parametrize("kind", [28, 16, 33, 65])
def test_another_record_of_a_name_that_is_there_is_no_error(kind: int) -> None:
    asked = dns.question(query(kind=kind))
    assert asked is not None
    assert struct.unpack_from(">HHHH", dns.address_answer(asked, address="240.240.0.1"))[1:] == (0x8580, 1, 0)


def test_a_client_with_options_gets_options() -> None:
    options = b"\0\0\x29\x10\0\0\0\0\0\0\0"
    asked = dns.question(query(counts=(1, 0, 0, 1)) + options)
    assert asked is not None
    answer = dns.error(asked, code=dns.NO_SUCH_NAME)
    assert struct.unpack_from(">HHHHHH", answer)[1:] == (0x8583, 1, 0, 0, 1)
    assert answer[-11:-8] == b"\0\0\x29"


@given(st.binary(max_size=600))
def test_any_bytes_are_a_question_or_none(message: bytes) -> None:
    asked = dns.question(message)
    assert asked is None or message[12:].startswith(asked.section)
