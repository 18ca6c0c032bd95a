"""Fields that end here and fields that go on, of requests, trailers and answers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hbone import fields
from hbone.events import Fields
from hbone.fields import Kind

FORGED = [b"x-forwarded-client-cert", b"x-envoy-original-path", b"x-krun-identity", b"proxy", b"proxy-authorization"]
HOP = [b"keep-alive", b"http2-settings", b"proxy-connection"]
LASTING = [b"x-forwarded-for", b"x-forwarded-proto", b"content-type", b"authorization", b"cookie", b"sec-websocket-key"]
NAMES = st.from_regex(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,20}", fullmatch=True)


@st.composite
def spelt(draw: st.DrawFn, names: list[bytes]) -> bytes:
    """One of the names, in any case, with ``_`` for any ``-``."""
    name = draw(st.sampled_from(names)).decode()
    return "".join(draw(st.sampled_from([one, one.upper(), "_" if one == "-" else one])) for one in name).encode()


def only(*names: bytes) -> Fields:
    return tuple((name, b"1") for name in names)


@given(name=spelt(FORGED + HOP))
def test_forged_field_ends_here_in_any_spelling(name: bytes) -> None:
    assert fields.passed(only(name, b"accept")) == only(b"accept")
    assert fields.trailers(only(name, b"x-sum")) == only(b"x-sum")


@given(name=spelt([b"x-forwarded-for", b"content-length", b"content-type", b"x-real-ip", b"host"]))
def test_fronts_field_passes_under_its_own_name_alone(name: bytes) -> None:
    if b"_" in name:
        assert fields.kind(name) is Kind.ENDS_HERE
    else:
        assert fields.kind(name) in (Kind.PASSED, Kind.READ)


@given(name=NAMES, value=st.binary(max_size=9))
def test_field_that_goes_on_is_left_as_it_was(name: bytes, value: bytes) -> None:
    given_fields = ((name, value),)
    assert fields.passed(given_fields) in ((), given_fields)
    assert fields.trailers(given_fields) in ((), given_fields)


@given(name=st.binary(max_size=12))
def test_name_is_malformed_or_a_token(name: bytes) -> None:
    is_token = bool(name) and not set(name) - set(b"!#$%&'*+.^_`|~-0123456789") - {
        byte for byte in range(256) if chr(byte).isascii() and chr(byte).isalpha()
    }
    assert (fields.kind(name) is Kind.MALFORMED) == (not is_token)


@given(value=st.binary(max_size=12))
def test_value_without_control_characters_and_outer_space_is_well_formed(value: bytes) -> None:
    is_clean = not any((byte < 32 and byte != 9) or byte == 127 for byte in value) and value == value.strip(b" \t")
    assert fields.are_well_formed(((b"x", value),)) == is_clean


@given(word=spelt(LASTING))
def test_connection_takes_out_no_field_from_end_to_end_in_any_spelling(word: bytes) -> None:
    assert fields.passed(only(*LASTING), connection=[word]) == only(*LASTING)


@pytest.mark.parametrize("name", LASTING)
def test_connection_takes_out_what_it_names_but_for_fields_from_end_to_end(name: bytes) -> None:
    sent = only(name, b"X-Hop", b"x_hop", b"accept")
    assert fields.passed(sent, connection=[b"close, x-hop", name]) == only(name, b"accept")


def test_order_and_spelling_are_kept() -> None:
    sent = ((b"X-B", b"2"), (b"x-a", b"1"), (b"X-B", b"3"), (b"x_own", b""))
    assert fields.passed(sent) == sent


@pytest.mark.parametrize(
    "name",
    [b"content-length", b"transfer-encoding", b"trailer", b"host", b"authorization", b"cookie", b"set-cookie", b"te"]
    + [b"content-type", b"content-encoding", b"content-range", b"x-forwarded-for", b"forwarded", b"expect", b"range"]
    + [b"x-serverless-authorization", b"x-cloud-trace-context", b"content-language", b"content-md5"],
)
def test_trailer_that_frames_routes_or_authenticates_is_dropped(name: bytes) -> None:
    assert fields.trailers(only(b"grpc-status", name, name.title(), name.replace(b"-", b"_"))) == only(b"grpc-status")


def test_answer_keeps_all_but_fields_of_one_hop() -> None:
    kept = only(b"Server", b"Date", b"Via", b"Set-Cookie", b"x-envoy-x", b"Trailer", b"Content-Length")
    hop = only(b"Keep-Alive", b"Transfer-Encoding", b"Upgrade", b"Proxy-Connection", b"x-hop")
    assert fields.answered((*kept, *hop, (b"Connection", b"X-Hop, Set-Cookie"))) == kept


def test_words_of_a_list_are_small_and_not_empty() -> None:
    assert fields.words([b"Close, ,X-A", b"", b"\tTE "]) == (b"close", b"x-a", b"te")
    assert fields.lowered(((b"X-A", b"B"),)) == ((b"x-a", b"B"),)


def test_names_made_up_to_fill_the_memory_are_not_remembered() -> None:
    before = fields._kind.cache_info().currsize
    for number in range(100):
        assert fields.kind(b"x-%d-" % number + b"y" * 60_000) is Kind.PASSED
    assert fields._kind.cache_info().currsize == before
