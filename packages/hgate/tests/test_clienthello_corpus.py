"""ClientHellos of real clients, caught from them: each gives the name and the protocols that its client was told."""

from __future__ import annotations

from random import Random

import pytest

from hgate.clienthello import MAX_SIZE, ClientHello, HelloError, Parser
from krun_testbed.hello_corpus import Caught, load
from krun_testbed.hello_mutations import in_records, message_of

CORPUS = load()
ENCRYPTED_HELLO = 0xFE0D
SUPPORTED_GROUPS = 10
POST_QUANTUM = 0x11EC  # X25519MLKEM768
# Records' ends: in the header, around the name, single bytes, and as large as a segment.
SIZES = [[1] * 200, [2, 3, 5], [4], [38], [60] * 40, [1448], [700, 1, 700]]

each = pytest.mark.parametrize("caught", CORPUS, ids=[caught.name for caught in CORPUS])


def feed(pieces: list[bytes]) -> ClientHello | None:
    parser = Parser()
    found = None
    for piece in pieces:
        assert found is None, "found before its last byte"
        found = parser.feed(piece)
    return found


def extensions(hello: bytes) -> dict[int, bytes]:
    """By number, read without our parser."""
    body = message_of(hello)[4:]
    at = 34 + 1 + body[34]
    at += 2 + int.from_bytes(body[at : at + 2], "big")
    at += 1 + body[at] + 2
    found = {}
    while at < len(body):
        kind, size = (int.from_bytes(body[at + place : at + place + 2], "big") for place in (0, 2))
        found[kind] = body[at + 4 : at + 4 + size]
        at += 4 + size
    return found


def is_grease(number: int) -> bool:
    return number & 0x0F0F == 0x0A0A and number >> 8 == number & 0xFF


def named(*names: str) -> list[Caught]:
    return [caught for caught in CORPUS if caught.name in names]


@each
def test_a_real_hello_gives_what_its_client_was_told(caught: Caught) -> None:
    found = feed([caught.data])
    assert found is not None
    assert found.sni == caught.sni
    assert caught.alpn in (None, found.alpn)


@each
def test_split_at_every_byte_it_gives_the_same(caught: Caught) -> None:
    whole = feed([caught.data])
    for at in range(1, len(caught.data)):
        assert feed([caught.data[:at], caught.data[at:]]) == whole
    assert feed([bytes([byte]) for byte in caught.data]) == whole


@each
@pytest.mark.parametrize("sizes", SIZES, ids=[f"{len(sizes)}x{sizes[0]}" for sizes in SIZES])
def test_spread_over_records_it_gives_the_same(caught: Caught, sizes: list[int]) -> None:
    whole, spread = feed([caught.data]), in_records(message_of(caught.data), sizes)
    assert feed([spread]) == whole
    assert feed([spread[start : start + 97] for start in range(0, len(spread), 97)]) == whole


@each
def test_with_bytes_after_it_it_gives_the_same(caught: Caught) -> None:
    early = caught.data + b"\x17\x03\x03\x00\x10" + bytes(16)
    assert Parser().feed(early) == feed([caught.data])


@each
def test_cut_short_it_is_never_taken_for_whole(caught: Caught) -> None:
    for end in range(len(caught.data)):
        assert Parser().feed(caught.data[:end]) is None


def test_the_corpus_has_what_is_hard() -> None:
    with_encrypted = {one.name for one in CORPUS if ENCRYPTED_HELLO in extensions(one.data)}
    assert with_encrypted >= {"chromium", "firefox", "go-ech", "nss-grease", "rustls-grease"}
    groups = {one.name: extensions(one.data).get(SUPPORTED_GROUPS, b"") for one in CORPUS}
    post_quantum = {name for name, data in groups.items() if POST_QUANTUM.to_bytes(2, "big") in data}
    assert post_quantum >= {"chromium", "envoy", "firefox", "go", "grpc", "rustls"}
    assert any(is_grease(number) for number in extensions(named("chromium")[0].data))
    assert {one.sni for one in named("go-no-name", "gnutls-no-name", "openssl-no-name", "rustls-no-name")} == {""}
    assert {one.sni for one in named("gnutls-address", "openssl-address")} == {"192.0.2.7"}
    assert max(len(one.data) for one in CORPUS) > 1500


def taken_of(data: bytes, *, piece: int) -> int:
    """How many bytes are taken, in pieces, until they are refused."""
    parser = Parser()
    for at in range(0, len(data), piece):
        try:
            assert parser.feed(data[at : at + piece]) is None
        except HelloError:
            return at + piece
    raise AssertionError("all of it was taken")


@pytest.mark.parametrize("start", [b"", b"\x16", b"\x16\x03\x01", b"\x16\x03\x01\x40\x00\x01\x00\x3f\xf0"])
@pytest.mark.parametrize("piece", [1, 1448, 65536])
def test_junk_of_64_kib_is_refused_within_the_limit(start: bytes, piece: int) -> None:
    random = Random(7)
    for _ in range(20):
        assert taken_of(start + random.randbytes(65536), piece=piece) <= MAX_SIZE + piece


@pytest.mark.parametrize("size", [1, 2, 100])
def test_a_hello_in_records_that_never_end_is_refused_within_the_limit(size: int) -> None:
    message = b"\x01\x00\x3f\xff" + bytes(MAX_SIZE)
    data = in_records(message, [size] * (MAX_SIZE // size))
    assert taken_of(data, piece=50) <= MAX_SIZE + 50
