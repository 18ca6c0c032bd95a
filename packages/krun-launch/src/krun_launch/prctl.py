"""What Linux lets a process say about itself and its children, by prctl(2): Python has no call for it."""

from __future__ import annotations

import ctypes
import os

PDEATHSIG = 1  # PR_SET_PDEATHSIG
SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER

# Looked up once and before any fork: a child between fork and exec must not load libraries.
_PRCTL = ctypes.CDLL(None, use_errno=True).prctl


def adopt_orphans() -> bool:
    """Become the parent of every process below us that loses its own; False where the kernel cannot do it."""
    if os.getpid() == 1:
        return True
    return int(_PRCTL(SUBREAPER, 1, 0, 0, 0)) == 0


def outlive_parent() -> None:
    """Get no signal any more when the parent dies."""
    _PRCTL(PDEATHSIG, 0, 0, 0, 0)


def die_with_parent(signal_number: int, *, parent: int) -> None:
    """In a new child: get this signal when the parent dies, also when it died before this call."""
    _PRCTL(PDEATHSIG, signal_number, 0, 0, 0)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal_number)
