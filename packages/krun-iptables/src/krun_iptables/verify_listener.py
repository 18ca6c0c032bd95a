"""Listeners on the ports that connections are led to; each says a word that only this run knows."""

from __future__ import annotations

import errno
import socket
import struct
from ipaddress import ip_address
from typing import TYPE_CHECKING

from krun_iptables.explain import HERE
from krun_iptables.explain_route import family as socket_family

if TYPE_CHECKING:
    from krun_iptables.packet import Address
    from krun_iptables.verify_owner import Owner

# linux/netfilter_ipv4.h, linux/netfilter_ipv6/ip6_tables.h: the same number, of two levels.
SO_ORIGINAL_DST = 80
QUEUE = 64

Key = tuple[int, str, int]  # family, protocol, port


def opened(where: Key, *, owner: Owner | None = None) -> socket.socket | None:
    """A listener on loopback, where REDIRECT leads; None when another program has the port.

    ``owner`` is whose it is: the agent's answers are told by that.

    Raises:
        OSError: it cannot be opened for another reason.
    """
    family, protocol, port = where
    here = HERE[family]
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    if owner is None:
        made = socket.socket(socket_family(here), kind)
    else:
        from krun_iptables import verify_owner

        made = verify_owner.opened(owner, socket_family(here), kind)
    made.setblocking(False)
    try:
        if protocol == "tcp":
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((str(here), port))
        if protocol == "tcp":
            made.listen(QUEUE)
    except OSError as error:
        made.close()
        if error.errno == errno.EADDRINUSE:
            return None
        raise
    return made


def original(connection: socket.socket) -> tuple[Address, int]:
    """Where a client wanted to go, out of the kernel's table of connections.

    Raises:
        OSError: the kernel does not know.
    """
    if connection.family == socket.AF_INET:
        packed = connection.getsockopt(socket.SOL_IP, SO_ORIGINAL_DST, 16)
        port, address = struct.unpack("!2xH4s8x", packed)
    else:
        packed = connection.getsockopt(socket.IPPROTO_IPV6, SO_ORIGINAL_DST, 28)
        port, address = struct.unpack("!2xH4x16s4x", packed)
    return ip_address(address), port
