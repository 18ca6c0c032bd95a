"""A file of one token, which its readers see whole, old or new."""

from __future__ import annotations

import contextlib
import errno
import os
import stat

from krun_discover.errors import Denied, Failure, Misconfigured, Unreachable
from krun_discover.issued import Token
from krun_discover.record import Record

MODE = 0o600


class TokenFile(Record):
    """The file; ``uid`` and ``gid`` are its owner's, -1 for whoever we are."""

    path: str
    mode: int = MODE
    uid: int = -1
    gid: int = -1

    def check(self) -> None:
        """Raises Misconfigured for what must not be replaced: a link or a device, such as /dev/stdout."""
        try:
            found = os.lstat(self.path).st_mode
        except FileNotFoundError:
            return
        except (OSError, ValueError) as error:
            raise _failure(self.path, error) from error
        if not stat.S_ISREG(found):
            raise Misconfigured(f"{self.path} is not a regular file", hint="name a file that may be replaced")

    def write(self, token: Token) -> None:
        """Replace the file; nothing but the token is in it, as the kubelet writes it. Raises a Failure."""
        # Not tempfile, which takes longer to import than this all.
        folder, name = os.path.split(self.path)
        unfinished = os.path.join(folder, f".{name}.{os.urandom(8).hex()}")
        try:
            descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, MODE)
        except (OSError, ValueError) as error:
            raise _failure(self.path, error) from error
        try:
            with os.fdopen(descriptor, "wb") as file:
                if (self.uid, self.gid) != (-1, -1):
                    os.fchown(descriptor, self.uid, self.gid)
                os.fchmod(descriptor, self.mode)
                file.write(token.value.encode())
                file.flush()
                os.fsync(descriptor)
            os.replace(unfinished, self.path)
        except OSError as error:
            raise _failure(self.path, error) from error
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(unfinished)

    def remove(self) -> None:
        """Remove the file, whose token has expired: to its readers that would be worse than none."""
        with contextlib.suppress(OSError):
            os.unlink(self.path)


def owner(text: str) -> tuple[int, int]:
    """Read ``UID`` or ``UID:GID``; -1 for a group that is not given. Raises ValueError."""
    uid, colon, gid = text.partition(":")
    numbers = [uid, gid] if colon else [uid]
    if not all(number.isascii() and number.isdecimal() and len(number) < 10 for number in numbers):
        raise ValueError(f"{text!r} is not UID or UID:GID, in numbers")
    return int(uid), int(gid) if colon else -1


def mode(text: str) -> int:
    """Read a mode as chmod does, in octal digits; only reading and writing. Raises ValueError."""
    digits = text.removeprefix("0o")
    found = int(digits, 8) if digits and len(digits) <= 4 and set(digits) <= set("01234567") else -1
    if found & ~0o666 or not found & 0o400:
        raise ValueError(f"{text!r} is not a mode such as 0600 or 0640")
    return found


def _failure(path: str, error: OSError | ValueError) -> Failure:
    number = error.errno if isinstance(error, OSError) else errno.ENOENT
    text = f"{path} cannot be written: {os.strerror(number or errno.EIO)}"
    if number in (errno.EACCES, errno.EPERM, errno.EROFS):
        return Denied(text, hint="as this user, name another file, or leave out --owner")
    if number in (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG):
        return Misconfigured(text, hint=f"is there such a folder? mkdir -p {os.path.dirname(path) or '.'}")
    return Unreachable(text, hint="is the disk full?")
