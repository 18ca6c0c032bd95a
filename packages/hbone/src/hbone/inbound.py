"""One request on its way in, as the exchange sees it: the same for both versions of HTTP."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from hbone.events import Fields
from hbone.message import Answer, Request
from hbone.offers import Refusal

MAX_READY = 16 * 1024  # bytes of a body that goes out in one piece with its head


class Gone(Exception):
    """The client has given up, or its connection is lost."""


class Malformed(Exception):
    """The body is not what its head says; ``refusal`` is the answer to that."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.refusal = Refusal(status=400, text=f"krun: {reason}\n")


class Inbound(Protocol):
    """A request whose head is in order, and the way back to its client."""

    request: Request
    trailers: Fields  # after the body, as they came

    async def read(self) -> bytes:
        """The next bytes of the body, ``b""`` at its end. Raises Gone, Malformed."""

    def ready(self) -> bytes | None:
        """The whole body, when it is here already and small; else None, and nothing is lost. Raises Malformed."""

    def acknowledge(self, count: int) -> None:
        """So many bytes have been handed on."""

    def when_gone(self, call: Callable[[float], None] | None) -> None:
        """Have it called when the client is gone, with the seconds that the rest may still take."""

    async def inform(self, answer: Answer) -> None:
        """Hand on what comes before the answer."""

    async def answer(self, answer: Answer, data: bytes, *, ends: bool) -> None:
        """Hand on the answer's head, and what there is of its body already. Raises Gone."""

    async def write(self, data: bytes) -> None:
        """Hand on more of the body. Raises Gone."""

    async def end(self, trailers: Fields) -> None:
        """The answer is whole."""

    def abort(self) -> None:
        """The answer will never be whole: the client must see that."""

    async def refuse(self, refusal: Refusal) -> None:
        """Answer with a short text of our own."""

    async def finish(self) -> None:
        """The answer is out: deal with what still comes of the request."""
