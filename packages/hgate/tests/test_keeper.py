"""ID tokens are made for accepted identities when they are needed, renewed while they are used, and forgotten."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from hgate import errors
from hgate.feed import Message, Need, NoToken, Token
from hgate.keeper import Keeper
from hgate.routes import Identity
from hgate.token_source import Minted

WEB = Identity(audience="https://web.example")
SHOP = Identity(audience="https://shop.example", account="shop@example")
LIFE = 3600.0


class Mint:
    """A source that counts, and fails on demand; each token is another one."""

    is_configured = False

    def __init__(self) -> None:
        self.asked: list[Identity] = []
        self.failure: errors.Failure | None = None
        self.wait = asyncio.Event()
        self.wait.set()

    async def mint(self, identity: Identity, *, now: float) -> Minted:
        self.asked.append(identity)
        number = len(self.asked)
        await self.wait.wait()
        if self.failure:
            raise self.failure
        return Minted(token=f"token-{number}", issued=now, expires=now + LIFE, email="me@example")


class Kept:
    """A keeper with a clock of the test's, and what it has told."""

    def __init__(self, group: asyncio.TaskGroup) -> None:
        self.now = 1_000_000.0
        self.mint = Mint()
        self.told: list[Message] = []
        self.heard = asyncio.Event()
        self.keeper = Keeper(source=self.mint, tell=self._tell, group=group, clock=lambda: self.now)
        self.keeper.allow({WEB, SHOP})

    def _tell(self, message: Message) -> None:
        self.told.append(message)
        self.heard.set()

    async def until(self, count: int) -> Message:
        """The last of so many messages."""
        async with asyncio.timeout(10):
            while len(self.told) < count:
                self.heard.clear()
                await self.heard.wait()
        return self.told[count - 1]

    async def some_rounds(self) -> None:
        """Let the keeper look after its tokens a few times, and whatever it begins come to its end."""
        for _ in range(20):
            self.keeper.look()
            await asyncio.sleep(0)


def kept(scene: Callable[[Kept], Coroutine[Any, Any, None]]) -> None:
    """Run a scene."""

    async def run() -> None:
        async with asyncio.TaskGroup() as group:
            await scene(Kept(group))

    asyncio.run(run())


def test_a_token_is_made_when_it_is_needed_and_once_for_all_who_wait() -> None:
    async def scene(made: Kept) -> None:
        await made.some_rounds()
        assert made.mint.asked == []
        made.mint.wait.clear()
        for _ in range(5):
            made.keeper.need(Need(identity=WEB))
        made.mint.wait.set()
        token = await made.until(1)
        assert isinstance(token, Token)
        assert (token.identity, token.token, token.email) == (WEB, "token-1", "me@example")
        assert made.mint.asked == [WEB]

    kept(scene)


def test_nobody_is_asked_for_an_identity_of_no_route() -> None:
    async def scene(made: Kept) -> None:
        made.keeper.need(Need(identity=Identity(audience="https://evil.example")))
        assert isinstance(await made.until(1), NoToken)
        made.keeper.need(Need(identity=WEB))
        await made.until(2)
        made.keeper.allow({SHOP})
        made.keeper.need(Need(identity=WEB))
        assert isinstance(await made.until(3), NoToken)
        assert made.mint.asked == [WEB]
        assert made.keeper.tokens() == []

    kept(scene)


def test_a_used_token_is_renewed_ahead_and_an_unused_one_is_not() -> None:
    async def scene(made: Kept) -> None:
        made.keeper.need(Need(identity=WEB))
        await made.until(1)
        made.keeper.need(Need(identity=WEB))  # a worker says that it uses it
        made.now += 0.79 * LIFE
        await made.some_rounds()
        assert len(made.mint.asked) == 1
        made.now += 0.02 * LIFE
        await made.some_rounds()
        assert isinstance(await made.until(2), Token)
        # The second is not used: it runs out, and nobody is asked for a third.
        made.now += LIFE
        await made.some_rounds()
        assert len(made.mint.asked) == 2
        assert made.keeper.tokens() == []
        made.keeper.need(Need(identity=WEB))
        assert isinstance(await made.until(3), Token)

    kept(scene)


def test_a_refused_token_is_made_anew_but_not_the_one_that_was_just_made() -> None:
    async def scene(made: Kept) -> None:
        made.keeper.need(Need(identity=WEB))
        await made.until(1)
        for count in (2, 3, 4):
            made.keeper.need(Need(identity=WEB, refused=True))
            again = await made.until(count)
            assert isinstance(again, Token)
            assert again.token == "token-1"
        assert len(made.mint.asked) == 1

    kept(scene)


def test_a_renewal_that_fails_leaves_the_old_token_and_is_tried_again_later() -> None:
    async def scene(made: Kept) -> None:
        made.keeper.need(Need(identity=WEB))
        await made.until(1)
        made.keeper.need(Need(identity=WEB))
        made.mint.failure = errors.Unreachable("no answer", hint="wait")
        made.now += 0.9 * LIFE
        await made.some_rounds()
        assert len(made.mint.asked) == 2
        assert len(made.told) == 1
        assert len(made.keeper.tokens()) == 1
        assert made.keeper.failed == 1

    kept(scene)


def test_who_waits_is_told_why_there_is_none_and_the_source_is_not_pressed() -> None:
    async def scene(made: Kept) -> None:
        made.mint.failure = errors.Denied("IAM refuses", hint="grant it")
        for count in range(1, 6):
            made.keeper.need(Need(identity=SHOP))
            told = await made.until(count)
            assert told == NoToken(identity=SHOP, error="IAM refuses", hint="grant it")
        assert made.mint.asked == [SHOP]

    kept(scene)


def test_tokens_are_in_no_text_of_theirs() -> None:
    minted = Minted(token="secret", issued=0.0, expires=1.0)
    assert "secret" not in repr(minted)
    assert "secret" not in repr(Token(identity=WEB, token="secret", expires=1.0))
