"""ID tokens from a command or a file, minted when a tunnel is opened and kept for most of their life."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import re
import shlex
import subprocess
import time
from collections.abc import Awaitable
from dataclasses import dataclass
from pathlib import Path

from hbone import errors

COMMAND_TIMEOUT = 30.0  # seconds
FRESH = 0.8  # of a token's life; then a new one is asked for
# A token that is no JWT, or does not say how long it lives.
UNKNOWN_LIFE = 60.0
MAX_TIME = 1e11  # seconds since 1970; what is more is no time
_TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]+")  # RFC 6750 §2.1, so that it can break no header
SOURCES = "--token-command (KRUN_ID_TOKEN_COMMAND) or --token-file (KRUN_ID_TOKEN_FILE)"


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where tokens come from: a command, in which ``{audience}`` is replaced, or a file; or nowhere."""

    command: str | None = None
    file: str | None = None

    def __bool__(self) -> bool:
        return bool(self.command or self.file)


class Tokens:
    """Tokens by audience. The file is read each time, as others keep it fresh; the command's answer is kept."""

    def __init__(self, source: Source, *, timeout: float = COMMAND_TIMEOUT) -> None:
        if source.command and source.file:
            raise errors.Misconfigured("a token command and a token file are given", hint=f"give one of {SOURCES}")
        self.source = source
        self._timeout = timeout
        self._argv = _words(source.command) if source.command else []
        self._kept: dict[str, tuple[str, float]] = {}
        self._asking = asyncio.Lock()

    async def find(self, audience: str) -> str | None:
        """A token for the audience, ``None`` without a source.

        Raises:
            Misconfigured: there is no token in the file, or no such command.
            Denied: the command failed.
            DeadlinePassed: it did not end in time.
        """
        if self.source.file:
            return _read(self.source.file)
        if not self._argv:
            return None
        try:
            # Around the lock too: who waits for another's command fails when that does, not one after the other.
            async with asyncio.timeout(self._timeout), self._asking:  # a hundred tunnels at once need one token
                token, until = self._kept.get(audience, ("", 0.0))
                if time.time() >= until:
                    token = await self._ask(audience)
                    self._kept[audience] = (token, fresh_until(token, now=time.time()))
                return token
        except TimeoutError as error:
            what = f"no ID token from {self._argv[0]!r} within {self._timeout:g} s"
            raise errors.DeadlinePassed(what, hint="run the command by hand") from error

    def ready(self, audience: str) -> str | Awaitable[str | None] | None:
        """The same at once, when nothing has to be waited for. Raises Misconfigured."""
        if self.source.file:
            return _read(self.source.file)
        if not self._argv:
            return None
        token, until = self._kept.get(audience, ("", 0.0))
        return token if time.time() < until else self.find(audience)

    def forget(self, audience: str) -> None:
        """The token was not accepted: the next one is a new one."""
        self._kept.pop(audience, None)

    async def _ask(self, audience: str) -> str:
        argv = [word.replace("{audience}", audience) for word in self._argv]
        try:
            # Its stderr is ours: what it complains about is for the user.
            process = await asyncio.create_subprocess_exec(
                *argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, start_new_session=False
            )
        except OSError as error:
            raise errors.Misconfigured(f"cannot run the token command {argv[0]!r}: {error.strerror}") from error
        try:
            said, _ = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode:
            raise errors.Denied(
                f"no ID token: {argv[0]!r} ended with status {process.returncode}",
                hint=f"it was asked for audience {audience}; run it by hand",
            )
        return _checked(said.decode(errors="replace"), where=f"the output of {argv[0]!r}")


def fresh_until(token: str, *, now: float) -> float:
    """Until when (seconds since 1970) a token is used: 80 % of its life; its ``iat`` or now is the start."""
    claims = claims_of(token)
    issued, expires = claims.get("iat"), claims.get("exp")
    if not isinstance(expires, int | float):
        return now + UNKNOWN_LIFE
    if not (abs(expires) < MAX_TIME):  # nan, too
        return now + UNKNOWN_LIFE
    start = float(issued) if isinstance(issued, int | float) and issued <= now else now
    return start + FRESH * (float(expires) - start)


def claims_of(token: str) -> dict[str, object]:
    """The claims of a JWT (RFC 7519 §3), not verified; empty when it is none."""
    parts = token.split(".")
    if len(parts) != 3:
        return {}
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (ValueError, binascii.Error):
        return {}
    return claims if isinstance(claims, dict) else {}


def _read(file: str) -> str:
    try:
        text = Path(file).read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise errors.Misconfigured(
            f"cannot read the ID token file {file}: {error.strerror}", hint=f"see {SOURCES}"
        ) from error
    return _checked(text, where=f"the ID token file {file}")


def _checked(text: str, *, where: str) -> str:
    token = text.strip()
    if not _TOKEN.fullmatch(token):
        what = "is empty" if not token else "holds something that is no token"
        raise errors.Misconfigured(f"{where} {what}", hint="one token, and nothing else, is expected there")
    return token


def _words(command: str) -> list[str]:
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise errors.Misconfigured(f"the token command cannot be read: {error}", hint="check its quotes") from error
    if not words:
        raise errors.Misconfigured("the token command is empty", hint=f"see {SOURCES}")
    return words
