"""ID tokens from a command or a file, minted when a tunnel is opened and kept for most of their life."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import subprocess
import time
from collections.abc import Awaitable

from hbone import token_source
from hbone.token_source import COMMAND_TIMEOUT, Source

__all__ = ["UNKNOWN_LIFE", "Source", "Tokens", "claims_of", "fresh_until"]

FRESH = 0.8  # of a token's life; then a new one is asked for
# A token that is no JWT, or does not say how long it lives.
UNKNOWN_LIFE = 60.0
MAX_TIME = 1e11  # seconds since 1970; what is more is no time


class Tokens:
    """Tokens by audience. The file is read each time, as others keep it fresh; the command's answer is kept."""

    def __init__(self, source: Source, *, timeout: float = COMMAND_TIMEOUT) -> None:
        token_source.check(source)
        self.source = source
        self._timeout = timeout
        self._argv = token_source.words(source.command) if source.command else []
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
            return token_source.read(self.source.file)
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
            raise token_source.too_slow(self._argv, seconds=self._timeout) from error

    def ready(self, audience: str) -> str | Awaitable[str | None] | None:
        """The same at once, when nothing has to be waited for. Raises Misconfigured."""
        if self.source.file:
            return token_source.read(self.source.file)
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
            raise token_source.not_run(error, argv=argv) from error
        try:
            said, _ = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        return token_source.said(process.returncode or 0, said, argv=argv, audience=audience)


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
