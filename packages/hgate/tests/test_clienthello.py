from __future__ import annotations

import itertools
import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hgate.clienthello import MAX_SIZE, ClientHello, NotTLS, Parser, TooBig

SNI = "outbound_.8080_._.b.demo.svc.cluster.local"


def real_hello(*, sni: str | None = SNI, alpn: tuple[str, ...] = ("istio-peer-exchange", "istio")) -> bytes:
    """What OpenSSL sends first."""
    context = ssl.create_default_context()
    context.check_hostname = False
    if alpn:
        context.set_alpn_protocols(list(alpn))
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(incoming, outgoing, server_hostname=sni)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


def body_of(hello: bytes) -> bytes:
    return hello[5:]


def in_records(message: bytes, size: int) -> bytes:
    """A handshake message spread over records of so many bytes (RFC 8446 §5.1)."""
    pieces = [message[start : start + size] for start in range(0, len(message), size)]
    return b"".join(b"\x16\x03\x01" + len(piece).to_bytes(2, "big") + piece for piece in pieces)


def extended(hello: bytes, extension: bytes) -> bytes:
    """The same hello with one extension more, as a post-quantum key share makes it."""
    body = hello[9:]
    at = 2 + 32
    at += 1 + body[at]
    at += 2 + int.from_bytes(body[at : at + 2], "big")
    at += 1 + body[at]
    extensions = body[at + 2 :] + extension
    new = body[:at] + len(extensions).to_bytes(2, "big") + extensions
    message = b"\x01" + len(new).to_bytes(3, "big") + new
    return in_records(message, 16384)


REAL = real_hello()
BIG = extended(REAL, b"\xfe\x0d" + (1600).to_bytes(2, "big") + bytes(1600))
EXPECTED = ClientHello(sni=SNI, alpn=("istio-peer-exchange", "istio"))


def feed(pieces: list[bytes]) -> ClientHello | None:
    parser = Parser()
    found = None
    for piece in pieces:
        assert found is None, "found before its last byte"
        found = parser.feed(piece)
    return found


def test_real_hello_is_read_whole() -> None:
    assert feed([REAL]) == EXPECTED


def test_hello_without_name_and_protocols_is_one_with_none() -> None:
    assert feed([real_hello(sni=None, alpn=())]) == ClientHello(sni="", alpn=())


def test_hello_larger_than_a_segment_is_put_together() -> None:
    assert len(BIG) > 1500
    assert feed([BIG[:1448], BIG[1448:]]) == EXPECTED


def test_byte_by_byte_is_found_with_the_last_byte_and_not_before() -> None:
    for hello in (REAL, BIG):
        assert feed([bytes([byte]) for byte in hello]) == EXPECTED


@given(st.lists(st.integers(1, len(BIG) - 1), max_size=20))
def test_any_split_gives_the_same_hello(cuts: list[int]) -> None:
    places = [0, *sorted(set(cuts)), len(BIG)]
    assert feed([BIG[start:end] for start, end in itertools.pairwise(places)]) == EXPECTED


@given(st.integers(1, 2000), st.integers(1, 400))
def test_any_records_give_the_same_hello(record: int, piece: int) -> None:
    data = in_records(body_of(REAL), record)
    assert feed([data[start : start + piece] for start in range(0, len(data), piece)]) == EXPECTED


def test_bytes_after_the_hello_do_not_matter() -> None:
    assert Parser().feed(REAL + b"\x14\x03\x03\x00\x01\x01") == EXPECTED


@pytest.mark.parametrize(
    "data",
    [
        b"G",
        b"GET / HTTP/1.1\r\n",
        b"SSH-2.0-x\r\n",
        b"\x16\x02",
        b"\x15\x03\x01\x00\x02\x02\x28",
        b"\x16\x03\x01\x00\x00",
        b"\x16\x03\x01\x40\x01",
        b"\x16\x03\x01\x00\x01\x02",
        b"\x80\x2e\x01\x03\x01",
    ],
)
def test_what_is_no_tls_is_said_at_once(data: bytes) -> None:
    with pytest.raises(NotTLS):
        Parser().feed(data)


def test_hello_that_is_too_long_is_refused_as_soon_as_it_says_so() -> None:
    message = b"\x01" + (MAX_SIZE + 1).to_bytes(3, "big")
    with pytest.raises(TooBig):
        Parser().feed(in_records(message, 4))


def test_hello_in_endless_tiny_records_is_refused() -> None:
    message = b"\x01" + (MAX_SIZE).to_bytes(3, "big") + bytes(MAX_SIZE)
    data = in_records(message, 1)
    with pytest.raises(TooBig):
        feed([data[start : start + 1000] for start in range(0, len(data), 1000)])


@given(st.integers(9, len(REAL) - 1), st.integers(0, 255))
def test_changed_byte_gives_a_hello_or_not_tls_and_nothing_else(place: int, byte: int) -> None:
    changed = REAL[:place] + bytes([byte]) + REAL[place + 1 :]
    try:
        found = Parser().feed(changed)
    except (NotTLS, TooBig):
        return
    assert found is not None


@given(st.binary(max_size=200))
def test_nonsense_in_a_record_raises_nothing_else(noise: bytes) -> None:
    message = b"\x01" + len(noise).to_bytes(3, "big") + noise
    try:
        Parser().feed(in_records(message, 100))
    except NotTLS:
        return
