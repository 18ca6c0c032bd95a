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
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from krun_discover.errors import DeadlinePassed, Denied, Failure, Malformed, Misconfigured, Unreachable

DATA = "..data"
NEXT = "..data_tmp"
KEY = re.compile(r"[-._a-zA-Z0-9]{1,253}")  # of config maps and secrets; see also ``check``
PAUSE = 0.05  # seconds between two looks at a lock
TIMED = re.compile(r"\.\.\d{4}_.*")


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
            _own(folder / (folder / DATA).readlink(), *owner)
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
        if error.errno in (errno.EEXIST, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP):
            kind, hint = Misconfigured, "name a folder with --to, or one to be made"
        raise kind(f"{folder} cannot be written: {error.strerror}", hint=hint) from error


@contextlib.contextmanager
def _locked(folder: Path, *, deadline: float) -> Iterator[None]:
    """One writer at a time; the lock ends with the process."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() + PAUSE > deadline:
                    raise DeadlinePassed(
                        f"{folder}: another krun-secret is writing to it", hint="one folder, one secret"
                    ) from None
            time.sleep(PAUSE)
        yield
    finally:
        os.close(descriptor)


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
    """What is in force, None when that is nothing or nothing whole."""
    data = folder / DATA
    try:
        return {path.name: path.read_bytes() for path in data.iterdir()}
    except OSError:
        return None


def _replace(folder: Path, files: Mapping[str, bytes], *, owner: tuple[int, int]) -> None:
    stamp = time.strftime("..%Y_%m_%d_%H_%M_%S.", time.gmtime())
    made = Path(tempfile.mkdtemp(prefix=stamp, dir=folder))  # mode 0700
    for name, content in files.items():
        descriptor = os.open(made / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
    _own(made, *owner)
    link = folder / NEXT
    link.unlink(missing_ok=True)
    link.symlink_to(made.name)
    link.rename(folder / DATA)


def _own(data: Path, uid: int, gid: int) -> None:
    """Give a folder of values to their reader, the folder last: until then nobody else can put anything into it."""
    if (uid, gid) != (-1, -1):
        for path in (*data.iterdir(), data):
            os.chown(path, uid, gid, follow_symlinks=False)


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
        if TIMED.fullmatch(path.name) and path.name != current:
            shutil.rmtree(path, ignore_errors=True)
