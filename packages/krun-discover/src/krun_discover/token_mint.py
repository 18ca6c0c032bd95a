"""How each of krun-token's commands gets its token: one object for the command, which mints as often as is needed."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from krun_discover.issued import Token
from krun_discover.web import Web


class Mint(Protocol):
    """Something that a command asks for its token."""

    def mint(self, *, seconds: float, is_new: bool) -> Token:
        """The token, within so many seconds; ``is_new``: not one that was kept. Raises a Failure."""

    def account(self) -> list[str]:
        """What was tried for the last one, a line each, without secrets."""


@dataclass(kw_only=True)
class Google:
    """An ID token for the audience, or an access token where there is none."""

    environ: Mapping[str, str]
    audience: str = ""
    scopes: Sequence[str] = ()
    _lines: list[str] = field(default_factory=list)

    def mint(self, *, seconds: float, is_new: bool) -> Token:
        """See Mint."""
        from krun_discover import token_cache
        from krun_discover.google_source import SCOPES
        from krun_discover.google_tokens import GoogleTokens

        cache = None if is_new else token_cache.TokenCache(folder=token_cache.folder(self.environ))
        web = Web(deadline=time.monotonic() + seconds, environ=self.environ)
        tokens = GoogleTokens(web=web, environ=self.environ, cache=cache)
        try:
            if self.audience:
                return tokens.identity(self.audience)
            return tokens.access(tuple(self.scopes) or SCOPES)
        finally:
            self._lines = [f"{one.source}: {one.outcome}" for one in tokens.tried] + _asked(web)

    def account(self) -> list[str]:
        """See Mint."""
        return self._lines


def _asked(web: Web) -> list[str]:
    return [f"{one.method} {one.url}: {one.outcome} ({one.seconds:.2f} s)" for one in web.journal]
