"""Memory that all connections of a loop share, as no two of them read at the same time: idle ones cost nothing."""

from __future__ import annotations

import functools
import mmap
import socket

from hbone.backlog import Blocks
from hbone.conduit import Conduit
from hbone.frames import DATA, HEADER, HEADER_LENGTH

INCOMING = 512 * 1024  # bytes of one read
PLAIN = 640 * 1024  # the same, decrypted
TURN = 256 * 1024  # bytes of one turn of a stream that is alone
SLOT = 16 * 1024  # the payload of a frame that every peer takes
# Where in its first page each buffer begins. Some processors (AMD's Zen 3 and 4) copy six times slower to an address
# that is a few bytes behind the one that they copy from, counted within a page. A program that sends whole pages and
# a frame's nine bytes of header make just that, when a buffer begins with its page.
BEHIND = 2048


class Buffers:
    """What is read, and what is framed to be sent."""

    def __init__(self, *, splices: bool = False) -> None:
        self.blocks = Blocks()
        self.conduit = Conduit() if splices else None
        self.incoming = _memory(INCOMING)
        self._view = _memory(TURN + HEADER_LENGTH * (TURN // SLOT))
        self._payload = self._view[HEADER_LENGTH:]
        step = HEADER_LENGTH + SLOT
        # Payload is read to where its frames want it, with room for their headers between.
        self._slots = [self._view[at + HEADER_LENGTH : at + step] for at in range(0, len(self._view), step)]

    @functools.cached_property
    def plain(self) -> memoryview:
        """For TLS alone."""
        return _memory(PLAIN)

    def read(self, local: socket.socket, *, room: int, frame: int) -> tuple[int, bool]:
        """Read up to ``room`` bytes from the socket, to be framed; whether in slots. Raises OSError."""
        if room > TURN:
            room = TURN
        if room <= frame:
            return local.recv_into(self._payload, room), False
        if room < 2 * SLOT:
            return local.recv_into(self._payload, SLOT), False
        return local.recvmsg_into(self._slots[: room // SLOT])[0], True

    def framed(self, count: int, *, stream: int, in_slots: bool) -> memoryview:
        """What was just read, as DATA frames."""
        pack, out = HEADER.pack_into, self._view
        if not in_slots or count <= SLOT:
            pack(out, 0, count >> 8, count & 0xFF, DATA, 0, stream)
            return self._view[: HEADER_LENGTH + count]
        at = 0
        while count > 0:
            size = min(count, SLOT)
            pack(out, at, size >> 8, size & 0xFF, DATA, 0, stream)
            at += HEADER_LENGTH + size
            count -= size
        return self._view[:at]


def _memory(size: int) -> memoryview:
    """That is at a known place in its pages, and costs nothing until it is used."""
    return memoryview(mmap.mmap(-1, BEHIND + size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))[BEHIND:]
