"""Where a token is written: stdout, or a file that its readers see whole, old or new."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path

import click

from krun_discover.errors import Denied, Failure, Misconfigured, Unreachable
from krun_discover.issued import Token

MODE = 0o600


@dataclass(frozen=True, kw_only=True)
class TokenFile:
    """The file; ``uid`` and ``gid`` are its owner's, -1 for whoever we are."""

    path: Path
    mode: int = MODE
    uid: int = -1
    gid: int = -1

    def check(self) -> None:
        """Raises Misconfigured for what must not be replaced: a link or a device, such as /dev/stdout."""
        try:
            found = self.path.lstat().st_mode
        except FileNotFoundError:
            return
        except (OSError, ValueError) as error:
            raise _failure(self.path, error) from error
        if not stat.S_ISREG(found):
            raise Misconfigured(f"{self.path} is not a regular file", hint="name a file that may be replaced")

    def write(self, token: Token) -> None:
        """Replace the file; nothing but the token is in it, as the kubelet writes it. Raises a Failure."""
        try:
            descriptor, name = tempfile.mkstemp(dir=self.path.parent, prefix=f".{self.path.name}.")
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
            Path(name).replace(self.path)
        except OSError as error:
            raise _failure(self.path, error) from error
        finally:
            with contextlib.suppress(FileNotFoundError):
                Path(name).unlink()

    def remove(self) -> None:
        """Remove the file, whose token has expired: to its readers that would be worse than none."""
        with contextlib.suppress(OSError):
            self.path.unlink()


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


def to_stdout(text: str) -> None:
    """Write to stdout at once, without Python's buffer: what fails is seen here, and not at the interpreter's end."""
    data = text.encode("utf-8", errors="surrogateescape")
    try:
        while data:
            data = data[os.write(1, data) :]
    except BrokenPipeError as error:
        # As a shell reports SIGPIPE. Not left to click, which would end with a status of its own.
        raise click.exceptions.Exit(128 + signal.SIGPIPE) from error
    except OSError as error:
        raise Unreachable(f"stdout cannot be written: {error.strerror}", hint="is the disk full?") from error


def _failure(path: Path, error: OSError | ValueError) -> Failure:
    number = error.errno if isinstance(error, OSError) else errno.ENOENT
    text = f"{path} cannot be written: {os.strerror(number or errno.EIO)}"
    if number in (errno.EACCES, errno.EPERM, errno.EROFS):
        return Denied(text, hint="as this user, name another file, or leave out --owner")
    if number in (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG):
        return Misconfigured(text, hint=f"is there such a folder? mkdir -p {path.parent}")
    return Unreachable(text, hint="is the disk full?")
