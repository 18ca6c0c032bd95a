"""Users and groups of this machine, by name. These modules are part of the interpreter, and cost no start."""

from __future__ import annotations


def uid(name: str) -> int | None:
    """The number of a user, or None."""
    import pwd

    try:
        return pwd.getpwnam(name).pw_uid
    except (KeyError, ValueError):  # a name with a NUL in it
        return None


def gid(name: str) -> int | None:
    """The number of a group, or None."""
    import grp

    try:
        return grp.getgrnam(name).gr_gid
    except (KeyError, ValueError):
        return None
