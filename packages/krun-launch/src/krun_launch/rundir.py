"""The folder that krun-launch writes for Envoy: private, and gone at the end unless the user named it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from krun_launch.errors import Misconfigured

PLACEHOLDER = "krun-launch-XXXXXXXX"


def path(env: Mapping[str, str], *, suffix: str = "") -> Path:
    """Where the folder is going to be: ``KRUN_RUN_DIR``, else a new name; ``suffix`` makes it unique."""
    if given := env.get("KRUN_RUN_DIR"):
        return Path(given).absolute()
    return Path(env.get("TMPDIR") or "/tmp").absolute() / (f"krun-launch-{suffix}" if suffix else PLACEHOLDER)


@contextlib.contextmanager
def written(
    directory: Path,
    *,
    files: Mapping[str, str],
    is_kept: bool,
    owner: int | None = None,
    folders: Iterable[str] = (),
    shared: Iterable[str] = (),
    links: Mapping[str, str] | None = None,
) -> Iterator[None]:
    """Make the folder and write the files, 0600; afterwards the folder is removed, or kept.

    ``owner`` is the user whose files they are, when we are root: the folder stays ours, open to the group of the same
    number, so that nobody but us decides what is where. Only in ``folders`` the owner writes; ``shared`` are made for
    other tools of ours. ``links`` lead elsewhere.

    Raises:
        Misconfigured: it cannot be written.
    """
    try:
        # A private one must be new: nobody may have put it there for us.
        directory.mkdir(mode=0o700, parents=is_kept, exist_ok=is_kept)
        try:
            for name, content in files.items():
                replace(_below(directory, name, owner=owner), content, owner=owner)
            for name in folders:
                _give(directory, name, owner=owner)
            for name in shared:
                _below(directory, f"{name}/.", owner=owner)
            for name, target in (links or {}).items():
                _link(directory, name, target, owner=owner)
        except OSError:
            if not is_kept:
                _remove(directory)
            raise
    except OSError as error:
        raise Misconfigured(
            f"run folder {directory}: cannot be written: {error.strerror}", hint="set KRUN_RUN_DIR to a folder of ours"
        ) from None
    try:
        yield
    finally:
        if not is_kept:
            _remove(directory)


def share(directory: Path, *, owner: int | None) -> None:
    """Let a user's group look into a folder of ours; Envoy watches some for what is moved into them."""
    if owner is not None:
        os.chown(directory, -1, owner)
        directory.chmod(0o750)


def hand(descriptor: int, *, owner: int | None) -> None:
    """Give an open file to a user, and to the group of the same number."""
    if owner is not None:
        os.fchown(descriptor, owner, owner)


def replace(file: Path, content: str, *, owner: int | None) -> None:
    """Write a file, 0600, in one step: whoever reads it sees the old one or the new one."""
    scratch = file.with_name(f".{file.name}.new")
    descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        os.fchmod(descriptor, 0o600)
        hand(descriptor, owner=owner)
        stream.write(content)
    scratch.rename(file)


def _below(directory: Path, name: str, *, owner: int | None) -> Path:
    """The path, with all folders between made and shared."""
    path = directory
    share(path, owner=owner)
    for part in name.split("/")[:-1]:
        path /= part
        path.mkdir(mode=0o700, exist_ok=True)
        share(path, owner=owner)
    return directory / name


def _give(directory: Path, name: str, *, owner: int | None) -> None:
    folder = _below(directory, name, owner=owner)
    folder.mkdir(mode=0o700, exist_ok=True)
    if owner is not None:
        os.chown(folder, owner, owner)


def _link(directory: Path, name: str, target: str, *, owner: int | None) -> None:
    link = _below(directory, name, owner=owner)
    scratch = link.with_name(f".{link.name}.new")
    scratch.unlink(missing_ok=True)
    scratch.symlink_to(target)
    scratch.replace(link)


def _remove(directory: Path) -> None:
    # Late: it imports every compressor, and is not needed before the end.
    import shutil

    shutil.rmtree(directory, ignore_errors=True)
