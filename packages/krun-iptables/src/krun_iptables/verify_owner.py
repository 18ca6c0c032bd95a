"""Sockets of other users, made by root: rules tell owners by who opened a socket, so nobody has to be started."""

from __future__ import annotations

import contextlib
import os
import socket
from typing import TYPE_CHECKING

from krun_iptables.errors import Denied
from krun_iptables.record import Record

if TYPE_CHECKING:
    from collections.abc import Iterator


class Owner(Record):
    """A user and its group."""

    uid: int
    gid: int

    @property
    def text(self) -> str:
        """In words."""
        return f"uid {self.uid}, gid {self.gid}"


def myself() -> Owner:
    """Who this process is."""
    return Owner(uid=os.geteuid(), gid=os.getegid())


def is_root() -> bool:
    """Whether others' sockets can be tried at all."""
    return os.geteuid() == 0


def can_be(owner: Owner) -> bool:
    """Whether sockets of this owner can be made."""
    try:
        with _being(owner):
            return True
    except Denied:
        return False


def opened(owner: Owner, family: int, kind: int) -> socket.socket:
    """A socket that belongs to this owner, and does not block.

    Raises:
        Denied: we may not be this owner.
        OSError: there are no such sockets here.
    """
    with _being(owner):
        made = socket.socket(family, kind)
    made.setblocking(False)
    return made


@contextlib.contextmanager
def _being(owner: Owner) -> Iterator[None]:
    """Take its ids as effective ones: the kernel writes these into what is opened meanwhile."""
    me = myself()
    if owner == me:
        yield
        return
    try:
        os.setegid(owner.gid)
        try:
            os.seteuid(owner.uid)
        except OSError:
            os.setegid(me.gid)
            raise
    except OSError as error:
        reason = (error.strerror or "").lower()
        raise Denied(f"this process cannot be {owner.text}: {reason}", hint="run it as root") from None
    try:
        yield
    finally:
        os.seteuid(me.uid)
        os.setegid(me.gid)
