"""On the way to a raw route's address: its name is looked up, and it is dialled."""

from __future__ import annotations

import socket
from collections.abc import Callable

from hbone.urls import Address
from hgate.connection import ENDED_NOW, Connection
from hgate.counts import UNREACHABLE
from hgate.dial import Dials, Found
from hgate.resolver import Resolver


class Approach:
    """The way; ``arrived`` gets the socket, or none when the connection has failed and is closed."""

    __slots__ = ("_address", "_arrived", "_connection", "_dials", "_is_over")

    def __init__(
        self,
        connection: Connection,
        address: Address,
        *,
        dials: Dials,
        arrived: Callable[[Approach, socket.socket | None], None],
    ) -> None:
        self._connection = connection
        self._address = address
        self._dials = dials
        self._arrived = arrived
        self._is_over = False

    def begin(self, resolver: Resolver) -> None:
        resolver.find(self._address, self._found)

    def end_now(self) -> None:
        self._fail(ENDED_NOW)

    def _found(self, addresses: list[Found], reason: str) -> None:
        if self._is_over:
            return
        if addresses:
            self._dials.start(addresses, self._dialled)
        else:
            self._fail(f"cannot find {self._address.host}: {reason} (hint: is the host's name right?)")

    def _dialled(self, dialled: socket.socket | None, reason: str) -> None:
        if self._is_over:
            if dialled is not None:
                dialled.close()
        elif dialled is None:
            self._fail(f"cannot reach {self._address}: {reason} (hint: does the workload listen there?)")
        else:
            self._is_over = True
            self._arrived(self, dialled)

    def _fail(self, reason: str) -> None:
        self._is_over = True
        self._connection.failed(reason, cause=UNREACHABLE)
        self._arrived(self, None)
