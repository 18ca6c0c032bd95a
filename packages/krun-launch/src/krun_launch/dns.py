"""DNS messages as bytes (RFC 1035 §4): reads the one question, writes the answers that we know; does no I/O."""

from __future__ import annotations

import ipaddress
import struct

from krun_launch.record import Record

HEADER = struct.Struct(">HHHHHH")
A, OPT, ANY = 1, 41, 255
INTERNET = 1
QUERY_MASK = 0xF800  # QR and OPCODE: both 0 in a standard query
RESPONSE, AUTHORITATIVE, RECURSION_WANTED, RECURSION_OFFERED = 0x8000, 0x0400, 0x0100, 0x0080
NO_ERROR, SERVER_FAILED, NO_SUCH_NAME = 0, 2, 3
TTL = 30  # seconds
LONGEST_LABEL = 63
LONGEST_NAME = 255


class Question(Record):
    """What is asked, with the bytes that an answer repeats."""

    identifier: int
    flags: int
    name: str  # without the dot at its end
    kind: int
    group: int  # the class: INTERNET
    section: bytes
    has_options: bool  # the client speaks EDNS (RFC 6891), and expects the answer to do so


def question(message: bytes) -> Question | None:
    """The question of a standard query with exactly one; None for anything else, which is not ours to answer."""
    if len(message) < HEADER.size:
        return None
    identifier, flags, questions, answers, authorities, additional = HEADER.unpack_from(message)
    if flags & QUERY_MASK or questions != 1 or answers or authorities:
        return None
    labels, at = [], HEADER.size
    while True:
        length = message[at] if at < len(message) else LONGEST_LABEL + 1
        if length > LONGEST_LABEL or at + 1 + length > len(message):
            return None  # cut off, or compressed, which a first name cannot be
        at += 1 + length
        if not length:
            break
        labels.append(message[at - length : at])
    if at + 4 > len(message) or at - HEADER.size > LONGEST_NAME:
        return None
    kind, group = struct.unpack_from(">HH", message, at)
    return Question(
        identifier=identifier,
        flags=flags,
        # A dot inside of a label is no separator: it makes a name that matches nothing.
        name=".".join(label.decode("latin-1").replace(".", "\\") for label in labels),
        kind=kind,
        group=group,
        section=message[HEADER.size : at + 4],
        has_options=additional > 0,
    )


def address_answer(asked: Question, *, address: str) -> bytes:
    """The address for A (and ANY); no other record is there, and the name exists (RFC 2308 §2.2)."""
    if asked.group != INTERNET or asked.kind not in (A, ANY):
        return _answer(asked, code=NO_ERROR)
    data = ipaddress.IPv4Address(address).packed
    # 0xC00C: the name at byte 12, which is the question's.
    record = struct.pack(">HHHIH", 0xC00C, A, INTERNET, TTL, len(data)) + data
    return _answer(asked, code=NO_ERROR, records=(record,))


def error(asked: Question, *, code: int) -> bytes:
    """An answer without records."""
    return _answer(asked, code=code)


def _answer(asked: Question, *, code: int, records: tuple[bytes, ...] = ()) -> bytes:
    flags = RESPONSE | AUTHORITATIVE | RECURSION_OFFERED | (asked.flags & RECURSION_WANTED) | code
    # RFC 6891 §6.1.1: root name, type, our largest UDP message, no flags, no data.
    options = struct.pack(">BHHIH", 0, OPT, 1232, 0, 0) if asked.has_options else b""
    counts = (1, len(records), 0, 1 if options else 0)
    return HEADER.pack(asked.identifier, flags, *counts) + asked.section + b"".join(records) + options
