"""One request on its way to the application, as the exchange sees it: the same for both versions of HTTP."""

from __future__ import annotations

import os
import socket
from typing import Protocol

from hbone import sockets
from hbone.events import Fields
from hbone.message import Answer

DIAL_TIMEOUT = 5.0  # seconds; the application is local


class AppBroken(Exception):
    """The application does not answer, or breaks off.

    ``is_safe`` says that it has done nothing with the request; ``is_malformed`` that it did answer, and not by HTTP.
    """

    def __init__(self, reason: str, *, is_safe: bool = False, is_malformed: bool = False) -> None:
        super().__init__(reason)
        self.is_safe = is_safe
        self.is_malformed = is_malformed


class AppStopped(Exception):
    """The application wants nothing more of the request; its answer may be whole all the same."""


class Outbound(Protocol):
    """A connection to the application, or one stream of it, while it carries one request."""

    trailers: Fields  # after the answer's body, those that go on
    is_reused: bool  # its connection has carried another request before
    has_sent_body: bool
    has_answered: bool  # at least one byte

    async def begin(self, body: bytes | None = None, trailers: Fields = ()) -> None:
        """Send the request's head, and its whole body when that is given. Raises AppBroken, AppStopped."""

    async def send(self, data: bytes) -> None:
        """Send more of its body. Raises AppBroken, AppStopped."""

    async def finish(self, trailers: Fields) -> None:
        """The request is whole. Raises AppBroken, AppStopped."""

    async def head(self) -> Answer:
        """The next head: any number of informations, then the answer. Raises AppBroken."""

    def ready(self) -> tuple[bytes, bool]:
        """What there is of the body already, and whether that is all. Raises AppBroken."""

    async def read(self) -> bytes:
        """The next bytes of the answer's body, ``b""`` at its end. Raises AppBroken."""

    def acknowledge(self, count: int) -> None:
        """So many bytes have been handed on."""

    def release(self) -> None:
        """The request is over: what is not, is given up."""


async def dial(address: str, port: int) -> socket.socket:
    """Connect to the application. Raises AppBroken."""
    try:
        return await sockets.dial(address, port, seconds=DIAL_TIMEOUT)
    except TimeoutError as error:
        raise AppBroken(f"no connection within {DIAL_TIMEOUT:g} s", is_safe=True) from error
    except OSError as error:
        raise AppBroken(os.strerror(error.errno or 0), is_safe=True) from error
