"""How much of a peer is read at once."""

from __future__ import annotations

from hbone.buffers import INCOMING
from hbone.pace import FIRST, LEAST, LONG, Pace


def test_peer_that_is_new_is_read_in_small_pieces_and_soon_in_large_ones() -> None:
    pace = Pace()
    assert pace.most == FIRST
    for _ in range(4):
        pace.took(0.0)
    assert pace.most == INCOMING


def test_peer_whose_frames_take_long_is_read_in_smaller_pieces_and_never_in_none() -> None:
    pace = Pace()
    for _ in range(20):
        pace.took(LONG * 2)
    assert pace.most == LEAST


def test_what_takes_neither_long_nor_short_changes_nothing() -> None:
    pace = Pace()
    pace.took(LONG / 2)
    assert pace.most == FIRST
