"""What a socket has not taken yet: it goes out whole and in order, and its memory is used again."""

from __future__ import annotations

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hbone.backlog import BLOCK, MAX_KEPT, Backlog, Blocks


class Taker:
    """As a socket that takes so much at a time."""

    def __init__(self, counts: list[int]) -> None:
        self.got = bytearray()
        self._counts = counts

    def send(self, piece: memoryview) -> int:
        return self.sendmsg([piece])

    def sendmsg(self, pieces: list[memoryview]) -> int:
        count = self._counts.pop(0) if self._counts else 2**31
        data = b"".join(pieces)[:count]
        self.got += data
        return len(data)


PIECES = st.lists(st.tuples(st.integers(0, 3 * BLOCK), st.integers(0, 255)), max_size=12)


@given(pieces=PIECES, sent=st.integers(0, 2 * BLOCK), counts=st.lists(st.integers(1, 2 * BLOCK), max_size=30))
def test_what_goes_in_comes_out_however_little_is_taken(
    pieces: list[tuple[int, int]], sent: int, counts: list[int]
) -> None:
    backlog, taker = Backlog(Blocks()), Taker(counts)
    data = [bytes([number]) * size for size, number in pieces]
    whole = b"".join(data)
    half = len(data) // 2
    backlog.add(data[:half], sent=sent)
    skipped = min(sent, sum(map(len, data[:half])))
    for piece in data[half:]:
        backlog.add([memoryview(piece)])
        if backlog:
            backlog.send(taker)  # type: ignore[arg-type]
    while backlog:
        backlog.send(taker)  # type: ignore[arg-type]
    assert bytes(taker.got) == whole[skipped:]


def test_memory_of_what_was_sent_is_used_again_and_not_kept_without_bound() -> None:
    store = Blocks()
    first = store.take()
    store.give(first)
    assert store.take() is first
    many = [store.take() for _ in range(2 * MAX_KEPT)]
    known = {id(block) for block in many}
    for block in many:
        store.give(block)
    assert sum(id(store.take()) in known for _ in range(2 * MAX_KEPT)) == MAX_KEPT


@pytest.mark.loopback
def test_full_socket_takes_the_rest_later() -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours, theirs:
        backlog = Backlog(Blocks())
        data = bytes(range(256)) * 8192
        backlog.add([data])
        got = bytearray()
        while backlog:
            try:
                backlog.send(ours)
            except BlockingIOError:
                got += theirs.recv(1024 * 1024)
        ours.shutdown(socket.SHUT_WR)
        while more := theirs.recv(1024 * 1024):
            got += more
        assert bytes(got) == data
