"""Reserved paths: every disguise is known, and what only looks like one is left alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hbone.reserved import MAX_DECODINGS, is_reserved

NAME = b"_hbone"
# Forms of one character that some server takes for it.
LETTERS = {bytes((byte,)): (b"%%%02x" % byte, b"%%%02X" % byte, b"%%25%02x" % byte) for byte in NAME}
BEFORE = st.sampled_from(
    [b"/", b"//", b"/./", b"/x/../", b"/x/..%2f", b"/%2e/", b"/\\", b"/x\\..\\", b"/x/..;/", b"/;a/"]
)
AFTER = st.sampled_from(
    [b"", b"/", b"/15003", b"//15003", b"/../x", b";a=b/1", b"%3fx", b"?x=1", b"%20", b"./1", b"\\1"]
)


@st.composite
def names(draw: st.DrawFn) -> bytes:
    """Our name, each letter in any case or encoding."""
    letters = (bytes((byte,)) for byte in NAME)
    return b"".join(draw(st.sampled_from([one, one.upper(), *LETTERS[one]])) for one in letters)


@given(before=BEFORE, name=names(), after=AFTER)
def test_reserved_path_is_known_in_any_disguise(before: bytes, name: bytes, after: bytes) -> None:
    assert is_reserved(before + name + after)


@given(path=st.binary(max_size=60).map(lambda rest: b"/" + rest))
def test_any_bytes_are_decided(path: bytes) -> None:
    assert isinstance(is_reserved(path), bool)


@given(parts=st.lists(st.from_regex(r"[a-z0-9]{1,9}", fullmatch=True), min_size=1, max_size=5))
def test_plain_path_is_never_reserved(parts: list[str]) -> None:
    assert not is_reserved(f"/{'/'.join(parts)}".encode())


@given(times=st.integers(min_value=0, max_value=MAX_DECODINGS + 4))
def test_path_is_reserved_however_often_it_is_encoded(times: int) -> None:
    assert is_reserved(b"/%" + b"25" * times + b"5fhbone/x")


def test_path_that_decodes_without_end_is_reserved() -> None:
    assert is_reserved(b"/%" + b"25" * (MAX_DECODINGS + 1) + b"41")
    assert not is_reserved(b"/%" + b"25" * (MAX_DECODINGS - 2) + b"41")


@pytest.mark.parametrize(
    "path",
    [
        b"/",
        b"*",
        b"/hbone/15003",
        b"/_hbon/e",
        b"/_hbone2/15003",
        b"/x_hbone",
        b"/x/_hbone/15003",
        b"/a/b/../_hbone",
        b"/?next=/_hbone/15003",
        b"/x?/../_hbone",
        b"/caf%C3%A9/%20",
        b"/a%2fb%5cc",
        b"/100%",
        b"/%zz/%5",
    ],
)
def test_path_that_only_looks_like_a_reserved_one_is_the_applications(path: bytes) -> None:
    assert not is_reserved(path)


@pytest.mark.parametrize(
    "path",
    [
        b"/%c1%9fhbone/x",  # an overlong form
        b"/%e0%81%9fhbone/x",  # and a longer one
        b"/_hbone%00x/15003",
        b"/_hbone%00",
        "/_hb\u200bone/x".encode(),
        b"/_hb%E2%80%8Done/x",
        b"/%EF%BB%BF_hbone/x",
        b"/%ef%bc%bfhbone/x",  # full width
        b"/%u005fhbone/x",
        b"/_hbone%00/x",
        b"/_hbone%09/x",
        b"/x/_hbone/../../_hbone",
        b"/../../_hbone",
        b"/x//../_hbone",  # where slashes are merged first
    ],
)
def test_form_of_lenient_servers_is_reserved(path: bytes) -> None:
    assert is_reserved(path)
