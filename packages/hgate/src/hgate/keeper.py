"""Keeps ID tokens for the workers: made when one is needed, renewed ahead while it is used, forgotten when it is not.

Tokens are made for identities of accepted routes only: whoever asks for another gets none, and nobody is called.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from hbone.errors import Failure as TunnelFailure
from hgate import errors
from hgate.bugs import place_of
from hgate.feed import Message, Need, NoToken, Token
from hgate.routes import Identity
from hgate.token_source import Minted, TokenSource

log = logging.getLogger(__name__)

RENEW_AT = 0.8  # of a token's life, as kubelet does
LAST = 30.0  # seconds before its end: then it is no token any more
# A new token was just made: that it was refused says nothing of the old one.
FRESH = 5.0
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0
MINT_TIMEOUT = 40.0


@dataclass(slots=True)
class _Kept:
    """What is known of one identity."""

    minted: Minted | None = None
    made: float = 0.0  # monotonic, of the token
    is_used: bool = False  # since it was made
    failure: NoToken | None = None
    failures: int = 0
    not_before: float = 0.0  # monotonic: when it may be tried again
    task: asyncio.Task[None] | None = None


@dataclass(frozen=True, kw_only=True)
class Age:
    """One token's state, for metrics."""

    identity: Identity
    issued: float
    expires: float


class Keeper:
    """Asked by ``need``; tells by ``tell``. Its work lives in the task group it is given."""

    def __init__(
        self,
        *,
        source: TokenSource,
        tell: Callable[[Message], None],
        group: asyncio.TaskGroup,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._source = source
        self._tell = tell
        self._group = group
        self._clock = clock
        self._allowed: frozenset[Identity] = frozenset()
        self._kept: dict[Identity, _Kept] = {}
        self.minted = 0
        self.failed = 0

    def allow(self, identities: Iterable[Identity]) -> None:
        """These are the identities of accepted routes, and no others; tokens of others are dropped."""
        self._allowed = frozenset(identities)
        for identity in [each for each in self._kept if each not in self._allowed]:
            kept = self._kept.pop(identity)
            if kept.task:
                kept.task.cancel()

    def need(self, need: Need) -> None:
        """A worker uses the token of an identity for the first time, has none, or had it refused."""
        identity = need.identity
        if identity not in self._allowed:
            self._tell(NoToken(identity=identity, error="no route has this identity (any more)"))
            return
        kept = self._kept.setdefault(identity, _Kept())
        kept.is_used = True
        if kept.task and not kept.task.done():
            return  # it is being made; who asked is told with all others
        now = time.monotonic()
        if kept.minted and self._is_good(kept.minted) and not (need.refused and now - kept.made > FRESH):
            if need.refused:
                self._tell(_token(identity, kept.minted))
            return
        if kept.failure and now < kept.not_before:
            self._tell(kept.failure)
            return
        self._start(identity, kept)

    def tokens(self) -> list[Message]:
        """What a worker must be told that has just started."""
        return [
            _token(identity, kept.minted)
            for identity, kept in self._kept.items()
            if kept.minted and self._is_good(kept.minted)
        ]

    def ages(self) -> list[Age]:
        """Of the tokens that are kept."""
        return [
            Age(identity=identity, issued=kept.minted.issued, expires=kept.minted.expires)
            for identity, kept in self._kept.items()
            if kept.minted
        ]

    async def run(self, *, tick: float = 1.0) -> None:
        """Renew what is used, forget what is not, until cancelled."""
        while True:
            self.look()
            await asyncio.sleep(tick)

    def look(self) -> None:
        """Look after each token once."""
        for identity, kept in list(self._kept.items()):
            self._look_after(identity, kept)

    def _look_after(self, identity: Identity, kept: _Kept) -> None:
        if kept.minted is None or (kept.task and not kept.task.done()):
            return
        now = self._clock()
        life = kept.minted.expires - kept.minted.issued
        if now >= kept.minted.expires - min(LAST, life / 10) and not kept.is_used:
            del self._kept[identity]
        elif kept.is_used and now >= kept.minted.issued + RENEW_AT * life and time.monotonic() >= kept.not_before:
            self._start(identity, kept)

    def _start(self, identity: Identity, kept: _Kept) -> None:
        kept.task = self._group.create_task(self._mint(identity, kept))

    async def _mint(self, identity: Identity, kept: _Kept) -> None:
        try:
            async with asyncio.timeout(MINT_TIMEOUT):
                minted = await self._source.mint(identity, now=self._clock())
        except (errors.Failure, TunnelFailure) as error:
            self._no_token(identity, kept, error=str(error), hint=getattr(error, "hint", ""))
            return
        except TimeoutError:
            self._no_token(identity, kept, error=f"no ID token within {MINT_TIMEOUT:g} s", hint="")
            return
        except Exception as error:  # noqa: BLE001 - the gate goes on: others have tokens
            log.error("a bug in making an ID token", extra={"fields": {"reason": place_of(error)}})
            self._no_token(identity, kept, error="a bug of the gate's: see its log", hint="")
            return
        self.minted += 1
        recovered = kept.failures
        # Used or not is asked of each token anew: a worker says so when it first uses it.
        kept.minted, kept.made, kept.is_used = minted, time.monotonic(), False
        kept.failure, kept.failures, kept.not_before = None, 0, 0.0
        if not self._is_good(minted) or minted.issued + RENEW_AT * (minted.expires - minted.issued) <= self._clock():
            # What a file or the metadata server keeps may be old already: not at once again.
            kept.not_before = time.monotonic() + LONGEST_PAUSE / 2
        self._tell(_token(identity, minted))
        if recovered:
            fields = {"audience": identity.audience, "account": identity.account}
            log.info("ID token made again", extra={"fields": fields})

    def _no_token(self, identity: Identity, kept: _Kept, *, error: str, hint: str) -> None:
        self.failed += 1
        pause = min(FIRST_PAUSE * 2 ** min(kept.failures, 10), LONGEST_PAUSE) * random.uniform(0.8, 1.0)
        kept.not_before = time.monotonic() + pause
        kept.failures += 1
        kept.failure = NoToken(identity=identity, error=error, hint=hint)
        if kept.failures == 1:
            reason = f"{error}; hint: {hint}" if hint else error
            fields = {"audience": identity.audience, "account": identity.account, "reason": reason}
            log.warning("no ID token", extra={"fields": fields})
        if not (kept.minted and self._is_good(kept.minted)):
            # While the old one is good, a failed renewal is nobody's business but ours.
            self._tell(kept.failure)

    def _is_good(self, minted: Minted) -> bool:
        return self._clock() < minted.expires - min(LAST, (minted.expires - minted.issued) / 10)


def _token(identity: Identity, minted: Minted) -> Token:
    return Token(identity=identity, token=minted.token, expires=minted.expires, email=minted.email)
