"""Header blocks: what is written is read again, in any frames, and never put into a table."""

from __future__ import annotations

import hpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hbone import blocks, frames
from hbone.blocks import Reader
from hbone.events import Fields
from hbone.frames import FrameError

FIELDS = st.lists(st.tuples(st.binary(min_size=1, max_size=200), st.binary(max_size=400)), max_size=8).map(tuple)


def split(data: bytes) -> list[bytes]:
    found = []
    while data:
        length = frames.HEADER_LENGTH + int.from_bytes(data[:3], "big")
        found.append(data[:length])
        data = data[length:]
    return found


@given(fields=FIELDS, ends=st.booleans(), size=st.integers(min_value=1, max_value=300), never_indexed=st.booleans())
def test_fields_come_back_as_they_were(fields: Fields, ends: bool, size: int, never_indexed: bool) -> None:
    block = blocks.write(fields, never_indexed=never_indexed)
    reader = Reader()
    found = [reader.feed(frame) for frame in split(frames.headers(stream=5, block=block, ends=ends, size=size))]
    assert found[:-1] == [None] * (len(found) - 1)
    whole = found[-1]
    assert whole is not None
    assert (whole.stream, whole.fields, whole.ends) == (5, fields, ends)


def test_nothing_is_put_into_a_table_and_secrets_are_marked() -> None:
    decoder = hpack.Decoder()
    found = decoder.decode(blocks.write(((b"x-a", b"1"), (b"cookie", b"a=1"))), raw=True)
    assert [isinstance(field, hpack.NeverIndexedHeaderTuple) for field in found] == [False, True]
    assert not decoder.header_table.dynamic_entries


@pytest.mark.parametrize(("kind", "stream"), [(blocks.CONTINUATION, 1), (blocks.PUSH_PROMISE, 1), (blocks.HEADERS, 0)])
def test_frame_out_of_order_is_an_error(kind: int, stream: int) -> None:
    frame = bytes((0, 0, 0, kind, blocks.END_HEADERS)) + stream.to_bytes(4, "big")
    with pytest.raises(FrameError):
        Reader().feed(frame)


def test_frame_of_another_kind_within_a_block_is_an_error() -> None:
    reader = Reader()
    reader.feed(bytes((0, 0, 0, blocks.HEADERS, 0, 0, 0, 0, 1)))
    assert reader.takes(0)
    with pytest.raises(FrameError):
        reader.feed(bytes((0, 0, 0, 0, 0, 0, 0, 0, 1)))


def test_block_without_end_is_an_error() -> None:
    reader = Reader()
    reader.feed(bytes((0, 0, 0, blocks.HEADERS, 0, 0, 0, 0, 1)))
    piece = (16384).to_bytes(3, "big") + bytes((blocks.CONTINUATION, 0, 0, 0, 0, 1)) + bytes(16384)
    for _ in range(blocks.MAX_BLOCK // 16384):
        assert reader.feed(piece) is None
    with pytest.raises(FrameError, match="more than"):
        reader.feed(piece)


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        (((b":status", b"200"),), 200),
        (((b":status", b"099"),), 0),
        (((b":status", b"2000"),), 0),
        (((b":status", b"200"), (b":status", b"204")), 0),
        ((), 0),
    ],
)
def test_status_is_three_digits_once(fields: Fields, status: int) -> None:
    assert blocks.status(fields) == status
