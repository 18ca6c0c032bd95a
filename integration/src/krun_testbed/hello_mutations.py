"""ClientHellos that are almost right, made of real ones by chance: by a seed, so that each can be made again."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from random import Random

RECORD = 5
Change = Callable[[Random, bytearray, Sequence[bytes]], None]


def message_of(hello: bytes) -> bytes:
    """The handshake message of a hello, without the records that carry it."""
    message, at = b"", 0
    while at < len(hello):
        size = int.from_bytes(hello[at + 3 : at + 5], "big")
        message += hello[at + RECORD : at + RECORD + size]
        at += RECORD + size
    return message


def in_records(message: bytes, sizes: Sequence[int]) -> bytes:
    """A message spread over records of these sizes in turn; what is left over comes in one more."""
    found, at = b"", 0
    for size in (*sizes, len(message)):
        piece = message[at : at + size]
        if piece:
            found += b"\x16\x03\x01" + len(piece).to_bytes(2, "big") + piece
        at += size
    return found


def mutated(random: Random, hellos: Sequence[bytes]) -> bytes:
    """One hello with a few changes; half of them spread over records anew, which a change of the bytes leaves right."""
    if random.random() < 0.5:
        message = bytearray(message_of(random.choice(hellos)))
        _change(random, message, hellos)
        if random.random() < 0.5:  # its own length made right again: changes within go deeper then
            message[1:4] = (len(message) - 4).to_bytes(3, "big")
        sizes = [random.choice((1, 2, 3, 40, 200, 1000)) for _ in range(random.randrange(6))]
        return in_records(bytes(message), sizes)
    hello = bytearray(random.choice(hellos))
    _change(random, hello, hellos)
    return bytes(hello)


def pieces(random: Random, data: bytes) -> list[bytes]:
    """The same bytes as a socket may give them."""
    cuts = sorted(random.randrange(len(data) + 1) for _ in range(random.randrange(8)))
    places = [0, *cuts, len(data)]
    return [data[start:end] for start, end in itertools.pairwise(places) if start < end]


def _change(random: Random, data: bytearray, hellos: Sequence[bytes]) -> None:
    for _ in range(random.choice((1, 1, 1, 2, 3, 8))):
        random.choice(CHANGES)(random, data, hellos)
        if len(data) < 4:
            data += bytes(4)


def _flip(random: Random, data: bytearray, _: Sequence[bytes]) -> None:
    data[random.randrange(len(data))] ^= 1 << random.randrange(8)


def _set(random: Random, data: bytearray, _: Sequence[bytes]) -> None:
    data[random.randrange(len(data))] = random.choice((0, 1, 0x7F, 0x80, 0xFF, random.randrange(256)))


def _set_length(random: Random, data: bytearray, _: Sequence[bytes]) -> None:
    """Two bytes that look like a length, near to what they were."""
    at = random.randrange(len(data) - 1)
    value = int.from_bytes(data[at : at + 2], "big") + random.choice((-2, -1, 1, 2, 256, -256))
    data[at : at + 2] = (value % 65536).to_bytes(2, "big")


def _cut(random: Random, data: bytearray, _: Sequence[bytes]) -> None:
    at = random.randrange(len(data))
    del data[at : at + random.choice((1, 2, 4, 50))]


def _end(random: Random, data: bytearray, _: Sequence[bytes]) -> None:
    del data[random.randrange(len(data)) :]


def _insert(random: Random, data: bytearray, _: Sequence[bytes]) -> None:
    at = random.randrange(len(data))
    data[at:at] = random.randbytes(random.choice((1, 2, 4, 300)))


def _repeat(random: Random, data: bytearray, _: Sequence[bytes]) -> None:
    start = random.randrange(len(data))
    piece = data[start : start + random.choice((1, 4, 60, 400))]
    at = random.randrange(len(data))
    data[at:at] = piece


def _exchange(random: Random, data: bytearray, hellos: Sequence[bytes]) -> None:
    """From some place on another hello's bytes."""
    other = random.choice(hellos)
    at = random.randrange(len(data))
    data[at:] = other[min(at, len(other) - 1) :]


CHANGES: tuple[Change, ...] = (
    _flip,
    _flip,
    _set,
    _set,
    _set_length,
    _set_length,
    _cut,
    _end,
    _insert,
    _repeat,
    _exchange,
)
