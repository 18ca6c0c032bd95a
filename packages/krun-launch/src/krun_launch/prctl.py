"""What Linux lets a process say about itself and its children, by prctl(2): Python has no call for it."""

from __future__ import annotations

import ctypes
import os

PDEATHSIG = 1  # PR_SET_PDEATHSIG
SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER

# Looked up once and before any fork: a child between fork and exec must not load libraries.
_PRCTL = ctypes.CDLL(None, use_errno=True).prctl


def call(option: int, *arguments: int) -> None:
    """Raises OSError when the kernel refuses."""
    if not try_call(option, *arguments):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def try_call(option: int, *arguments: int) -> bool:
    """Tell whether the kernel did it."""
    words = [ctypes.c_ulong(word) for word in (*arguments, 0, 0, 0, 0)[:4]]
    return int(_PRCTL(option, *words)) == 0


def adopt_orphans() -> bool:
    """Become the parent of every process below us that loses its own; False where the kernel cannot do it."""
    return os.getpid() == 1 or try_call(SUBREAPER, 1)


def outlive_parent() -> None:
    """Get no signal any more when the parent dies."""
    try_call(PDEATHSIG, 0)


def die_with_parent(signal_number: int, *, parent: int) -> None:
    """In a new child: get this signal when the parent dies, also when it died before this call.

    A change of user clears it (prctl(2)), so this comes after that.
    """
    try_call(PDEATHSIG, signal_number)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal_number)
