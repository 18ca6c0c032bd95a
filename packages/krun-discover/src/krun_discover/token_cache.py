"""Tokens kept between runs, each in a file of its owner's, for most of their life and never beyond its end."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
import time
from collections.abc import Callable, Mapping

from krun_discover import lines
from krun_discover.errors import DeadlinePassed, Unreachable
from krun_discover.issued import Token
from krun_discover.record import Record
from krun_discover.token_claims import is_token
from krun_discover.token_life import is_good, renewal

VARIABLE = "KRUN_TOKEN_CACHE"
OFF = "off"
LIMIT = 64 * 1024  # bytes of a file
LEFTOVER = 3600.0  # seconds after which a file that was never finished is swept


class Key(Record):
    """What a token is told from others by; ``principal`` says whose it is, and who issues it."""

    kind: str
    audience: str
    principal: str

    @property
    def name(self) -> str:
        """A file's name that tells nothing of it."""
        return hashlib.sha256(json.dumps([self.kind, self.audience, self.principal]).encode()).hexdigest()


class Entry(Record):
    """What a file holds. ``issued`` is when we got it."""

    token: Token
    issued: float


def folder(environ: Mapping[str, str]) -> str | None:
    """Where tokens are kept, None for nowhere: KRUN_TOKEN_CACHE, or krun/tokens below the user's caches."""
    named = environ.get(VARIABLE, "")
    if named:
        return None if named == OFF else named
    # Relative ones are to be ignored (XDG Base Directory Specification).
    caches = environ.get("XDG_CACHE_HOME", "")
    if caches.startswith("/"):
        return f"{caches}/krun/tokens"
    home = environ.get("HOME", "")
    return f"{home}/.cache/krun/tokens" if home.startswith("/") else None


class TokenCache:
    """The files in ``folder``. One that is not ours alone is not used; a file that cannot be read is no entry."""

    def __init__(
        self,
        *,
        folder: str | None,
        clock: Callable[[], float] = time.time,
        draw: Callable[[], float] | None = None,
    ) -> None:
        self._folder = folder
        self._clock = clock
        self._draw = draw or _drawn

    def through(self, key: Key, mint: Callable[[], Token]) -> Token:
        """The token that is kept, while it is fresh; else a new one, or the old one while nobody can be reached."""
        entry = self.find(key)
        if entry and self._is_fresh(entry):
            return entry.token
        try:
            token = mint()
        except (Unreachable, DeadlinePassed) as error:
            if entry is None or not is_good(expires=entry.token.expires, now=self._clock()):
                raise
            lines.warning("no new token, the old one is still good", source=entry.token.source, reason=error.message)
            return entry.token
        self.keep(key, token)
        return token

    def has_fresh(self, key: Key) -> bool:
        """Tell whether ``through`` would most likely mint nothing."""
        entry = self.find(key)
        return entry is not None and self._is_fresh(entry)

    def _is_fresh(self, entry: Entry) -> bool:
        return self._clock() < renewal(issued=entry.issued, expires=entry.token.expires, draw=self._draw())

    def find(self, key: Key) -> Entry | None:
        """What is kept and has not expired."""
        if self._folder is None or not _is_ours(self._folder):
            return None
        now = self._clock()
        entry = _read(f"{self._folder}/{key.name}")
        # Issued in the future: the clock has jumped, and nobody knows how long it still lives.
        return entry if entry and entry.issued <= now < entry.token.expires else None

    def keep(self, key: Key, token: Token) -> None:
        """Keep the token; where that cannot be, it is minted again next time."""
        if self._folder is None:
            return
        try:
            os.makedirs(self._folder, mode=0o700, exist_ok=True)
            if _is_ours(self._folder):
                _sweep(self._folder, now=self._clock())
                _write(f"{self._folder}/{key.name}", Entry(token=token, issued=self._clock()))
        except OSError as error:
            lines.debug("tokens cannot be kept", source=self._folder, reason=error.strerror)


def _drawn() -> float:
    import random  # late: with a new token nothing is drawn

    return random.random()


def _is_ours(folder: str) -> bool:
    """Tell whether nobody else can read or change what is in the folder."""
    try:
        found = os.lstat(folder)
    except OSError:
        return False
    is_ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o077
    if not is_ours:
        reason = "it must be a folder of this user, with mode 0700"
        lines.warning("tokens are not kept", source=folder, reason=reason)
    return is_ours


def _read(path: str) -> Entry | None:
    try:
        # Not through a link, and without waiting for a pipe's writer.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
                return None
            entry = json.loads(file.read(LIMIT))
        token = Token(value=entry["value"], expires=float(entry["expires"]), source=str(entry["source"]))
        return Entry(token=token, issued=float(entry["issued"])) if is_token(token.value) else None
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None


def _write(path: str, entry: Entry) -> None:
    text = {"value": entry.token.value, "expires": entry.token.expires, "source": entry.token.source}
    # Not tempfile, which takes longer to import than this all; the folder is ours alone.
    unfinished = f"{os.path.dirname(path)}/.{os.getpid()}-{time.monotonic_ns()}"
    try:
        with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            json.dump({**text, "issued": entry.issued}, file)
        # So that what has expired is seen without reading it.
        os.utime(unfinished, (entry.token.expires, entry.token.expires))
        os.replace(unfinished, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(unfinished)
        raise


def _sweep(folder: str, *, now: float) -> None:
    """Remove what has expired."""
    for entry in os.scandir(folder):
        try:
            found = entry.stat(follow_symlinks=False)
            patience = LEFTOVER if entry.name.startswith(".") else 0.0
            if found.st_mtime + patience < now and stat.S_ISREG(found.st_mode):
                os.unlink(entry.path)
        except OSError:
            pass  # another process was quicker
