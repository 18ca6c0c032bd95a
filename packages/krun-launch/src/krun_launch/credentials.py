"""Turns a new child into its identity: between fork and exec, for good. The kernel's calls are Linux's own."""

from __future__ import annotations

import ctypes
import os

from krun_launch import prctl
from krun_launch.identity import Identity

# linux/prctl.h
CAPBSET_DROP = 24
KEEPCAPS = 8
NO_NEW_PRIVS = 38
CAP_AMBIENT, AMBIENT_RAISE, AMBIENT_CLEAR_ALL = 47, 2, 4
# linux/capability.h: _LINUX_CAPABILITY_VERSION_3, whose sets are two words each.
VERSION = 0x20080522
WORDS = 2
LARGEST = 63


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Sets(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


# Looked up once and before any fork: a child between fork and exec must not load libraries.
_LIBC = ctypes.CDLL(None, use_errno=True)
_CAPGET, _CAPSET = _LIBC.capget, _LIBC.capset


def adopt(identity: Identity) -> None:
    """Become it. Raises OSError when the kernel refuses; the process must not go on then."""
    prctl.call(NO_NEW_PRIVS, 1)
    dropped = frozenset(range(LARGEST + 1)) - identity.keeps if identity.drops is None else identity.drops
    for number in sorted(dropped):
        if not prctl.try_call(CAPBSET_DROP, number):
            break  # beyond the last one that this kernel knows
    prctl.try_call(CAP_AMBIENT, AMBIENT_CLEAR_ALL)  # nothing to clear on a kernel without them
    prctl.call(KEEPCAPS, 1 if identity.keeps else 0)
    os.setgroups([identity.gid])
    os.setresgid(identity.gid, identity.gid, identity.gid)
    os.setresuid(identity.uid, identity.uid, identity.uid)
    if identity.uid == 0 and identity.drops is not None:
        _reduce(identity.drops)
    else:
        _keep(identity.keeps)


def _keep(numbers: frozenset[int]) -> None:
    """Have these capabilities and no other, also after exec."""
    header, sets = _capabilities()
    for word in range(WORDS):
        mask = _mask(numbers, word) & sets[word].permitted
        sets[word] = _Sets(mask, mask, mask)
    _checked(_CAPSET(ctypes.byref(header), sets))
    for number in numbers:
        # Not permitted where the container has not got it: then whoever needs it says what it was needed for.
        prctl.try_call(CAP_AMBIENT, AMBIENT_RAISE, number)


def _reduce(numbers: frozenset[int]) -> None:
    """Take these away; nothing is inherited but by being root."""
    header, sets = _capabilities()
    for word in range(WORDS):
        mask = ~_mask(numbers, word)
        sets[word] = _Sets(sets[word].effective & mask, sets[word].permitted & mask, 0)
    _checked(_CAPSET(ctypes.byref(header), sets))


def _capabilities() -> tuple[_Header, ctypes.Array[_Sets]]:
    header, sets = _Header(VERSION, 0), (_Sets * WORDS)()
    _checked(_CAPGET(ctypes.byref(header), sets))
    return header, sets


def _mask(numbers: frozenset[int], word: int) -> int:
    return sum(1 << (number % 32) for number in numbers if number // 32 == word)


def _checked(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
