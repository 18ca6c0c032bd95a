"""Netlink, as far as it is needed: routes are set, and the kernel is asked what is there, without a program's help.

Images often have no ``ip``, and asking the kernel takes a tenth of the time that a program needs to start. Numbers are
those of linux/netlink.h; a message is a header, a body of the family's own, and attributes.
"""

from __future__ import annotations

import _socket as socket  # without selectors and enum, which take longer to load than all of this to run
import errno
import os
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ROUTE, NETFILTER = 0, 12  # NETLINK_ROUTE, NETLINK_NETFILTER
REQUEST, ACK, DUMP = 1, 4, 0x300  # NLM_F_*
ADD = 0x600  # NLM_F_CREATE | NLM_F_EXCL
ERROR, DONE = 2, 3  # NLMSG_*
INTERRUPTED = 0x10  # NLM_F_DUMP_INTR: what was listed changed meanwhile
ATTEMPTS = 5  # at a list that was interrupted
SECONDS = 5  # for an answer
HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port
ATTRIBUTE = struct.Struct("=HH")  # length, type
TYPE = 0x3FFF  # of an attribute, without its flags


def ask(protocol: int, kind: int, body: bytes) -> list[bytes]:
    """List what is there: the bodies, with their attributes, of the answers.

    Raises:
        OSError: the kernel refuses, or knows no such thing.
    """
    for _ in range(ATTEMPTS):
        answers = list(_talk(protocol, kind, REQUEST | DUMP, body))
        if not any(flags & INTERRUPTED for flags, _ in answers):
            break
    return [answer for _, answer in answers]


def tell(kind: int, body: bytes, *, flags: int = 0) -> None:
    """Change one thing of NETLINK_ROUTE.

    Raises:
        OSError: the kernel refuses; EEXIST and ENOENT are what they are called.
    """
    list(_talk(ROUTE, kind, REQUEST | ACK | flags, body))


def _talk(protocol: int, kind: int, flags: int, body: bytes) -> Iterator[tuple[int, bytes]]:
    kernel = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
    try:
        kernel.settimeout(SECONDS)
        kernel.send(HEADER.pack(HEADER.size + len(body), kind, flags, 1, 0) + body)
        while True:
            data = kernel.recv(1 << 18)
            while len(data) >= HEADER.size:
                length, answer, answered, _, _ = HEADER.unpack_from(data)
                if answer == DONE:
                    return
                if answer == ERROR:
                    (code,) = struct.unpack_from("=i", data, HEADER.size)
                    if code:
                        raise OSError(-code, os.strerror(-code))
                    return
                yield answered, data[HEADER.size : length]
                data = data[_aligned(length) :]
    finally:
        kernel.close()


def pack(attributes: Mapping[int, bytes]) -> bytes:
    """Attributes, one after the other."""
    packed = b""
    for kind, value in attributes.items():
        size = ATTRIBUTE.size + len(value)
        packed += ATTRIBUTE.pack(size, kind) + value + bytes(_aligned(size) - size)
    return packed


def unpack(data: bytes) -> dict[int, bytes]:
    """The attributes in there, by their numbers; the last one of a number counts."""
    return dict(_each(data))


def elements(data: bytes) -> list[bytes]:
    """The values in there, of a list whose attributes all have one number."""
    return [value for _, value in _each(data)]


def _each(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= ATTRIBUTE.size:
        length, kind = ATTRIBUTE.unpack_from(data)
        if length < ATTRIBUTE.size:
            raise OSError(errno.EBADMSG, os.strerror(errno.EBADMSG))
        yield kind & TYPE, data[ATTRIBUTE.size : length]
        data = data[_aligned(length) :]


def _aligned(size: int) -> int:
    return (size + 3) & ~3
