"""Bytes that a socket has not taken yet, copied once into blocks of memory that are used again and again.

Memory that is new each time costs a page fault for every 4 KiB, which is more than the copy.
"""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Iterable
from itertools import islice

BLOCK = 32 * 1024
MAX_BLOCKS = 32  # of one system call
MAX_KEPT = 128  # blocks that are kept for others when they are empty

Piece = bytes | bytearray | memoryview


class Blocks:
    """Where blocks come from, and go to: one place for all connections of a loop."""

    def __init__(self) -> None:
        self._kept: list[memoryview] = []

    def take(self) -> memoryview:
        return self._kept.pop() if self._kept else memoryview(bytearray(BLOCK))

    def give(self, block: memoryview) -> None:
        if len(self._kept) < MAX_KEPT:
            self._kept.append(block)


class Backlog:
    """What waits; ``size``, and ``len()``, is the number of bytes."""

    __slots__ = ("_blocks", "_end", "_start", "_store", "size")

    def __init__(self, store: Blocks) -> None:
        self._store = store
        self._blocks: deque[memoryview] = deque()
        self._start = 0  # of the first block
        self._end = BLOCK  # of the last one
        self.size = 0

    def __len__(self) -> int:
        return self.size

    def add(self, pieces: Iterable[Piece], *, sent: int = 0) -> None:
        """Keep a copy of these, but for the first ``sent`` bytes."""
        for piece in pieces:
            if sent >= len(piece):
                sent -= len(piece)
            else:
                self._copy(memoryview(piece)[sent:])
                sent = 0

    def _copy(self, piece: memoryview) -> None:
        at, size = 0, len(piece)
        self.size += size
        while at < size:
            if self._end == BLOCK:
                self._blocks.append(self._store.take())
                self._end = 0
            count = min(BLOCK - self._end, size - at)
            self._blocks[-1][self._end : self._end + count] = piece[at : at + count]
            self._end += count
            at += count

    def send(self, to: socket.socket) -> int:
        """Send what the socket takes; return how much that was. Raises OSError."""
        blocks = self._blocks
        if len(blocks) == 1:
            sent = to.send(blocks[0][self._start : self._end])
        else:
            views = list(islice(blocks, MAX_BLOCKS))
            if len(views) == len(blocks):
                views[-1] = views[-1][: self._end]
            views[0] = views[0][self._start :]
            sent = to.sendmsg(views)
        self._drop(sent)
        return sent

    def _drop(self, count: int) -> None:
        self.size -= count
        self._start += count
        while self._start >= BLOCK:
            self._start -= BLOCK
            self._store.give(self._blocks.popleft())
        if not self.size:
            self.clear()

    def clear(self) -> None:
        for block in self._blocks:
            self._store.give(block)
        self._blocks.clear()
        self._start = self.size = 0
        self._end = BLOCK
