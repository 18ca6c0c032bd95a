"""Who a packet belongs to, as rules may name them: the number and the name of a user or a group."""

from __future__ import annotations

import grp
import pwd

LARGEST = 2**32 - 2


def user(text: str) -> tuple[str, ...]:
    """Number and, where there is one, name.

    Raises:
        ValueError: it is no number, and no user of this machine.
    """
    try:
        entry = pwd.getpwuid(_number(text)) if _is_number(text) else pwd.getpwnam(text)
    except KeyError:
        return _unnamed(text, "user")
    return (str(entry.pw_uid), entry.pw_name)


def group(text: str) -> tuple[str, ...]:
    """Number and, where there is one, name.

    Raises:
        ValueError: it is no number, and no group of this machine.
    """
    try:
        entry = grp.getgrgid(_number(text)) if _is_number(text) else grp.getgrnam(text)
    except KeyError:
        return _unnamed(text, "group")
    return (str(entry.gr_gid), entry.gr_name)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal()


def _number(text: str) -> int:
    number = int(text) if len(text) <= len(str(LARGEST)) else LARGEST + 1
    if number > LARGEST:
        raise ValueError(f"{text!r} is no id")
    return number


def _unnamed(text: str, kind: str) -> tuple[str, ...]:
    if not _is_number(text):
        raise ValueError(f"there is no {kind} {text!r}")
    return (str(int(text)),)
