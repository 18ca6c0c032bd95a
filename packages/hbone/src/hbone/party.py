"""Who has a stream of a session: what it is told, and what it does when its turn comes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from hbone import events
from hbone.stream import StreamBroken


class Party(Protocol):
    """Who has a stream, and is told what the peer does with it."""

    def informed(self, status: int, fields: events.Fields) -> None:
        """The server has said something before its answer."""

    def opened(self, status: int, fields: events.Fields) -> None:
        """The server has answered."""

    def received(self, pieces: Sequence[memoryview]) -> None:
        """Payload, in memory that is used again afterwards."""

    def ends_with(self, trailers: events.Fields) -> None:
        """The end that follows has trailers."""

    def ended(self) -> None:
        """The peer has sent all."""

    def has_room(self) -> None:
        """A window that was closed is open again."""

    def broke(self, error: StreamBroken) -> None:
        """The stream is over."""


class Sender(Protocol):
    """Who waits for the socket to have room, to read what it sends then."""

    def take_turn(self) -> None:
        """Send a turn's worth, and wait again when the socket has no room for more."""
