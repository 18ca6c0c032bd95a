"""A secret's values as files, all changed at once, as the kubelet's volumes are (pkg/volume/util/atomic_writer.go).

FOLDER/KEY is a link to ..data/KEY, and ..data one to a folder of this time. Whoever reads KEY reads all the old values
or all the new ones, and a run that is cut off leaves the old ones in force.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from krun_discover.errors import DeadlinePassed, Denied, Failure, Malformed, Misconfigured, Unreachable

DATA = "..data"
NEXT = "..data_tmp"
KEY = re.compile(r"[-._a-zA-Z0-9]{1,253}")  # of config maps and secrets; see also ``check``
PAUSE = 0.05  # seconds between two looks at a lock
TIMED = re.compile(r"\.\.\d{4}_[^/]*")  # folders of values


def check(names: Mapping[str, bytes], *, what: str) -> None:
    """Refuse keys that are no file names, or that are ours. Raises Malformed; ``what`` tells whose they are."""
    for name in names:
        if not KEY.fullmatch(name) or name == "." or name.startswith(".."):
            raise Malformed(
                f"{what}: key {name[:300]!r} cannot be a file's name",
                hint="keys are letters, digits, dots, dashes and underscores, without two dots at their start",
            )


def write(folder: Path, files: Mapping[str, bytes], *, deadline: float, owner: tuple[int, int] = (-1, -1)) -> bool:
    """Make the folder hold exactly these files, whose names have been checked; tell whether that changed anything.

    The folder is made, mode 0700, unless it is there; one of somebody else's keeps its mode. ``deadline`` is of
    time.monotonic; ``owner`` is a uid and a gid, -1 for our own.

    Raises Denied, Misconfigured for a folder that is in other use, Unreachable for a full disk, DeadlinePassed.
    """
    with _failures(folder):
        folder.mkdir(parents=True, mode=0o700, exist_ok=True)
        with _locked(folder, deadline=deadline):
            _check_use(folder, files)
            if os.geteuid() in (0, folder.stat().st_uid):
                folder.chmod(0o700)
            is_new = _current(folder) != dict(files)
            if is_new:
                _replace(folder, files, owner=owner)
            _link(folder, files)
            _sweep(folder)
            _own(folder / (folder / DATA).readlink(), files, owner=owner)
            if owner != (-1, -1):
                os.chown(folder, *owner)
            return is_new


@contextlib.contextmanager
def _failures(folder: Path) -> Iterator[None]:
    """Errors of the system become those of the tool."""
    try:
        yield
    except OSError as error:
        kind: type[Failure] = Unreachable
        hint = "is the disk full?"
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            kind, hint = Denied, "name a folder that this user may write to"
        if error.errno in (errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP):
            kind, hint = Misconfigured, "name a folder with --to, or one to be made"
        raise kind(f"{folder} cannot be written: {error.strerror}", hint=hint) from error


@contextlib.contextmanager
def _locked(folder: Path, *, deadline: float) -> Iterator[None]:
    """One writer at a time; the lock ends with the process."""
    with _opened(folder.resolve()) as place:
        while True:
            try:
                fcntl.flock(place, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() + PAUSE > deadline:
                    raise DeadlinePassed(
                        f"{folder}: another krun-secret is writing to it", hint="one folder, one secret"
                    ) from None
            time.sleep(PAUSE)
        yield


def _check_use(folder: Path, files: Mapping[str, bytes]) -> None:
    """Refuse a folder with things of somebody else: a mistaken ``--to /etc`` changes nothing."""
    is_ours = (folder / DATA).is_symlink()
    for path in sorted(folder.iterdir()):
        is_own = path.name.startswith("..") or _is_link(path)
        if not is_own and (not is_ours or path.name in files):
            raise Misconfigured(
                f"{folder} holds {path.name!r}, which is not of a secret", hint="name a folder of its own, or a new one"
            )


def _is_link(path: Path) -> bool:
    """Tell whether it is one of our links, FOLDER/KEY."""
    return path.is_symlink() and str(path.readlink()) == f"{DATA}/{path.name}"


def _current(folder: Path) -> dict[str, bytes] | None:
    """What is in force, None when that is nothing, or nothing that we have written.

    The folder may be its reader's, who is not trusted while we are root.
    """
    try:
        name = str((folder / DATA).readlink())
        if not TIMED.fullmatch(name) or (folder / name).is_symlink():
            return None
        paths = list((folder / name).iterdir())
        return {path.name: path.read_bytes() for path in paths} if all(map(_is_file, paths)) else None
    except OSError:
        return None


def _is_file(path: Path) -> bool:
    return stat.S_ISREG(path.lstat().st_mode)


def _replace(folder: Path, files: Mapping[str, bytes], *, owner: tuple[int, int]) -> None:
    stamp = time.strftime("..%Y_%m_%d_%H_%M_%S.", time.gmtime())
    made = Path(tempfile.mkdtemp(prefix=stamp, dir=folder))  # mode 0700
    with _opened(made) as place:
        for name, content in files.items():
            descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=place)
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
    _own(made, files, owner=owner)
    link = folder / NEXT
    link.unlink(missing_ok=True)
    link.symlink_to(made.name)
    link.rename(folder / DATA)


def _own(data: Path, names: Iterable[str], *, owner: tuple[int, int]) -> None:
    """Give a folder of values to their reader, itself last: until then nobody else can put anything into it."""
    if owner == (-1, -1):
        return
    with _opened(data) as place:
        for name in names:
            os.chown(name, *owner, dir_fd=place, follow_symlinks=False)
        os.fchown(place, *owner)


@contextlib.contextmanager
def _opened(folder: Path) -> Iterator[int]:
    """A folder, and no link that somebody has put in its place; it stays the same one, whatever becomes of its name."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _link(folder: Path, files: Mapping[str, bytes]) -> None:
    """The links: those of keys that are gone go, too."""
    for path in folder.iterdir():
        if _is_link(path) and path.name not in files:
            path.unlink()
    for name in files:
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(f"{DATA}/{name}")


def _sweep(folder: Path) -> None:
    """Remove folders of earlier times, and of runs that were cut off."""
    (folder / NEXT).unlink(missing_ok=True)
    current = str((folder / DATA).readlink())
    for path in folder.iterdir():
        if path.is_symlink() and TIMED.fullmatch(path.name):
            path.unlink()
        elif TIMED.fullmatch(path.name) and path.name != current:
            shutil.rmtree(path, ignore_errors=True)
