"""Leads each connection to where its server name says: by a tunnel, or as it is."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from typing import Protocol

from hbone.client import Client
from hbone.poller import Poller
from hbone.urls import URL
from hgate.approach import Approach, Approaches
from hgate.bugs import place_of
from hgate.connection import Connection
from hgate.counts import ROUTE, Counts
from hgate.hello import Hellos
from hgate.pipes import Pipes
from hgate.raw import Raw
from hgate.resolver import Start
from hgate.routes import RouteTable, read_sni
from hgate.tokens import Tokens
from hgate.tunnel import Tunnel

log = logging.getLogger(__name__)


class Open(Protocol):
    """A connection that has been led on, or is about to be."""

    def end_now(self) -> None:
        """Break it."""

    def end_by_bug(self) -> None:
        """The same, for that reason."""


class Gate:
    """All connections of a worker; ``ended`` is told when one has gone."""

    def __init__(
        self,
        *,
        poller: Poller,
        table: RouteTable,
        tokens: Tokens,
        client: Client,
        counts: Counts,
        hello_timeout: float,
        start: Start,
        ended: Callable[[], None],
    ) -> None:
        self._poller = poller
        self._table = table
        self._tokens = tokens
        self._client = client
        self._counts = counts
        self._ended = ended
        self._open: set[Open] = set()
        self._tunnels: set[Tunnel] = set()  # of these
        self._pipes = Pipes()
        self._approaches = Approaches(poller=poller, start=start, arrived=self._arrived)
        self.hellos = Hellos(poller=poller, seconds=hello_timeout, taken=self._lead, gone=ended)

    def __len__(self) -> int:
        """Connections that are not over, in whatever state."""
        return len(self._open) + len(self.hellos)

    def take(self, connected: socket.socket, peer: tuple[str, int]) -> None:
        """A connection that was accepted."""
        self._counts.accepted += 1
        self.hellos.take(Connection(connected, peer, counts=self._counts))

    @property
    def moved(self) -> tuple[int, int]:
        """Bytes of tunnels that are open, to workloads and from them: they count themselves when they have ended."""
        sent = received = 0
        for tunnel in self._tunnels:
            there, back = tunnel.moved
            sent += there
            received += back
        return sent, received

    def end_now(self, reason: str) -> None:
        """Break all."""
        self.hellos.end_all(reason)
        for one in list(self._open):
            one.end_now()

    def _lead(self, connection: Connection, first: bytes) -> None:
        destination = read_sni(connection.sni)
        target = self._table.find(destination) if destination else None
        if target is None:
            known = "no route" if destination else "not the name of a service" if connection.sni else "no server name"
            connection.refused(known, cause=ROUTE)
            self._ended()
            return
        connection.target = target
        if isinstance(target.place, URL):
            tunnel = Tunnel(
                connection,
                target.place,
                client=self._client,
                tokens=self._tokens,
                poller=self._poller,
                over=self._tunnel_over,
            )
            self._open.add(tunnel)
            self._tunnels.add(tunnel)
            self._counts.tunnels += 1
            self._counts.open_tunnels += 1
            self._begin(tunnel, lambda: tunnel.begin(first, identity=target.identity))
        else:
            self._counts.raw += 1
            self._counts.open_raw += 1

            approach = Approach(connection, first, target.place, approaches=self._approaches)
            self._open.add(approach)
            self._begin(approach, approach.begin)

    def _arrived(self, approach: Approach, dialled: socket.socket | None) -> None:
        self._open.discard(approach)
        if dialled is None:
            self._raw_over(None)
            return
        raw = Raw(approach.connection, dialled, poller=self._poller, pipes=self._pipes, over=self._raw_over)
        self._open.add(raw)
        self._begin(raw, lambda: raw.begin(approach.first))

    def _begin(self, one: Open, begin: Callable[[], object]) -> None:
        """Whatever goes wrong, it must not count as open for ever: no end would come to it any more."""
        try:
            begin()
        except Exception as error:  # noqa: BLE001 - others are served
            log.error("a bug ended a connection", extra={"fields": {"reason": place_of(error)}})
            one.end_by_bug()

    def _raw_over(self, raw: Raw | None) -> None:
        self._counts.open_raw -= 1
        if raw is not None:
            self._open.discard(raw)
        self._ended()

    def _tunnel_over(self, tunnel: Tunnel) -> None:
        self._counts.open_tunnels -= 1
        self._tunnels.discard(tunnel)
        self._open.discard(tunnel)
        self._ended()
